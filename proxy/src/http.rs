//! HTTP/1 and HTTP/2: protocols, and the order of an exchange.

pub(crate) mod deadline;
pub(crate) mod h1;
pub(crate) mod headers;
pub(crate) mod retry;
