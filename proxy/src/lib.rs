//! The sidecar of Weft. Modules in layer order, top first; `layers.toml` in
//! `tests/architecture` holds who may import whom.
//!
//! A request of our workload goes `listen` → `outbound` → `detect` →
//! `http::server` → `http::exchange` → `route` → `upstream::balance` →
//! `upstream::pool`; one that arrives for it goes `listen` → `inbound` →
//! `detect` → `tls::accept` → `http::server` → `http::exchange` → `authz` →
//! `upstream::connect`. Opaque bytes take `tcp` instead of `http`.

// Shell.
pub mod app;
pub mod config;
pub mod decide;
#[doc(hidden)]
pub mod reference;

// Stories.
mod admin;
mod inbound;
mod outbound;

// Engines.
mod control;
mod http;
mod listen;
mod tcp;

// Choosing and reaching an endpoint.
mod upstream;

// Mechanisms.
mod detect;
mod record;
pub mod redirect;
mod tls;
pub mod unverified;
mod wire;

// Decisions.
mod authz;
mod limit;
mod route;

// Data.
mod discovery;
mod outcome;
mod request;

// What tests outside of the crate may reach.
#[doc(hidden)]
pub mod seams;

// Ground.
mod addr;
mod around;
mod clock;
mod drain;
mod identity;
mod runtime;
mod sock;
mod telemetry;
