//! The control plane of Weft. `sources` turn manifests into events, `index`
//! joins them, `serve` streams the changes; `ca` signs; only `app` knows all.

pub mod app;
pub mod cli;
pub mod config;
pub mod reference;

mod demo;
mod run;

mod cluster;

mod admission;
mod ca;
mod serve;
mod sources;
mod status;

pub mod index;
pub mod model;

mod web;

mod clock;
mod gate;
mod identity;
mod report;
mod roots;
mod runtime;
