//! Chooses an endpoint, reaches it, keeps connections to it, and ejects it.
//!
//! Knows nothing of who calls: inbound and outbound use it alike.

pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod connect;
pub(crate) mod pool;
pub(crate) mod queue;
