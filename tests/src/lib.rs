//! Harness of the tests that need more than one process.

pub mod corpus;
pub mod http2;
pub mod probe;
pub mod programs;
pub mod raw;
pub mod recorder;
pub mod reference;
pub mod rogue;
pub mod traffic;
pub mod wait;
pub mod world;
