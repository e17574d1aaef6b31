//! Tests that guard the architecture.
