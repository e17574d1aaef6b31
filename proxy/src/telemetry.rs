//! Tracing and registry set-up.
