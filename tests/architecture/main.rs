//! Tests that guard the architecture: layers, budgets, documents. They read
//! the sources as text, so they cost a second and no build of their own.

mod budgets;
mod documents;
mod injection;
mod layers;
mod source;
