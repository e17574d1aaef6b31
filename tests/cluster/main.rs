//! A real Kubernetes with the mesh installed by Helm: what a platform team does,
//! and what it then relies on.
//!
//! Started by `tests/cluster/run`, which gives it images, `kubectl` and `helm`;
//! `cargo test` alone leaves it out. Tests run one after the other, each in
//! namespaces of its own, in one installation.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "helpers of tests panic as tests do; a table of cases is one thing"
)]

mod access;
mod authority;
mod conformance;
mod echo;
mod families;
mod injection;
mod install;
mod kubernetes;
mod load;
mod mesh;
mod namespace;
mod operators;
mod outages;
mod quick_start;
mod rolling;
mod routes;
mod verbs;
mod wire;
