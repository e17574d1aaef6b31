//! Carries opaque bytes both ways.
