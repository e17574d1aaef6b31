//! Harness of the tests that need more than one process.

pub mod corpus;
pub mod programs;
pub mod raw;
pub mod reference;
pub mod traffic;
pub mod wait;
pub mod world;
