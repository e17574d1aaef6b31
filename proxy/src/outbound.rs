//! The story of a connection that our workload opens.
