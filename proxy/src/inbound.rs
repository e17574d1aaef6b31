//! The story of a connection that arrives for our workload.
