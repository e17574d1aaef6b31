//! Chooses, reaches, pools and ejects endpoints.

pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod queue;
