//! The services as a proxy meets them: over TLS on loopback, in this process.

mod answers;
mod certify;
mod connections;
pub(crate) mod harness;
mod replicas;
mod silence;
mod watch;
