//! Applications and callers in the test's own process, with sockets in pods.
//!
//! An [`Application`] answers as a test's function says, over HTTP/1 and
//! HTTP/2 alike, and counts. [`callers`] send requests over connections that
//! they keep and tally what came back; `during` does so while the test does
//! something else. HTTP/1 is written by hand: what a library would hide
//! (a connection closed in the wrong moment) is what the tests are about.

mod application;
mod callers;
mod two;

pub use application::{Answer, Application, Asked};
pub use callers::{Load, One, Reply, Tally, dump, during, load, run};
pub use two::{Called, Two};
