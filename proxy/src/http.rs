//! HTTP/1 and HTTP/2: protocols, and the order of an exchange.
//!
//! `server` reads requests, `exchange` takes each to its end, `attempt` moves
//! one try's bytes. `one` and `two` are the two versions of everything that
//! depends on the version; `message` says what that is. What a route's filters
//! do is `filter`, `cors` and `mirror`.

pub(crate) mod answer;
mod attempt;
mod body;
mod cors;
pub(crate) mod deadline;
pub(crate) mod exchange;
mod filter;
pub(crate) mod h1;
pub(crate) mod headers;
mod message;
pub(crate) mod mirror;
mod one;
pub(crate) mod retry;
pub(crate) mod server;
mod tries;
mod two;
