//! Fuzz targets: one for each parser of network bytes, on the stable toolchain.
//!
//! A target is a function over bytes that panics when something is wrong. The
//! runner mutates the target's corpus; its seed is fixed, so a failure repeats.

mod http1;
mod parsers;
mod runner;
