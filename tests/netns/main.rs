//! Real programs in network namespaces, through two sidecars and without.
//!
//! Each behaviour is compared with the same run without a mesh; where a
//! transparent proxy can't but differ, `docs/differences.md` says so and the
//! test here holds it.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "helpers of tests panic as tests do; a table of cases is one thing"
)]

mod access;
mod bypass;
mod corpus;
mod differences;
mod documented;
mod faults;
mod harness;
mod hostile_http2;
mod http1;
mod http2;
mod loss;
mod lost;
mod pair;
mod programs;
mod ready;
mod routes;
mod run;
mod slow_http2;
mod streams;
mod tcp;
mod traffic;
mod websockets;
