//! HTTP/1 and HTTP/2: protocols, and the order of an exchange.
//!
//! `server` reads requests, `exchange` takes each to its end, `attempt` moves
//! one try's bytes. `one` and `two` are the two versions of everything that
//! depends on the version; `message` says what that is.

pub(crate) mod answer;
mod attempt;
mod body;
pub(crate) mod deadline;
pub(crate) mod exchange;
pub(crate) mod h1;
pub(crate) mod headers;
mod message;
mod one;
pub(crate) mod retry;
pub(crate) mod server;
mod two;
