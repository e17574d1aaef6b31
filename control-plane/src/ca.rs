//! Signs workload certificates, keeps the root and the token key, and watches
//! the bundle of roots that the mesh trusts.
//!
//! `app` opens an `Authority` on a state directory, or on what `cluster` keeps,
//! and hands it to `serve` behind traits. Keys never leave this module and its directory; nothing here
//! knows gRPC, pods or policy: callers say which identity a key is to get.

pub(crate) mod bundle;
pub(crate) mod issue;
pub(crate) mod rotate;
pub(crate) mod serving;
pub(crate) mod signing;
mod state;
pub(crate) mod token;

pub(crate) use issue::Authority;

/// What went wrong with the state directory or a request, with its remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}: {source}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path}: {message}; {remedy}")]
    State {
        path: String,
        message: String,
        remedy: &'static str,
    },
    #[error("certificate signing request refused: {0}")]
    Request(&'static str),
    #[error("signing: {0}")]
    Sign(#[from] rcgen::Error),
    #[error("what signs has itself expired")]
    Expired,
    #[error("token refused: {0}")]
    Token(&'static str),
}
