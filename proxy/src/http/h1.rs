//! The HTTP/1 codec of both legs: bytes to heads and bodies, and back.
//!
//! `http::server` reads requests and writes responses with it, the upstream
//! leg the reverse. Strict where RFC 9112 lets a recipient choose: what could
//! be read in two ways is refused, so that whatever reaches an application has
//! one meaning. Faithful otherwise: a line that the rules of a hop do not
//! touch is passed on byte for byte (order, case, spacing, reason phrase).
//!
//! Pure over buffers: no I/O, no clock, no policy. The tokens are httparse's;
//! lines, framing, targets and bodies are judged here.

mod bad;
mod body;
mod encode;
mod fields;
mod framing;
mod head;
mod scan;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use bad::Bad;
pub(crate) use body::{BodyDecoder, Decoded};
pub(crate) use encode::{
    Edit, Persistence, encode_answer, encode_chunk, encode_chunk_end, encode_chunk_start,
    encode_last_chunk, encode_request, encode_response,
};
pub(crate) use fields::{Field, Fields};
pub(crate) use framing::{Asked, Framing, request_framing, response_framing};
pub(crate) use head::{RequestHead, ResponseHead, Version, parse_request, parse_response};
pub(crate) use scan::Scanner;

/// How much a peer may send before it is refused. The same on both legs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Start line and fields together.
    pub(crate) head_bytes: usize,
    /// Field lines of a head or of a trailer section; at most [`MAX_FIELDS`].
    pub(crate) fields: usize,
    pub(crate) target_bytes: usize,
    /// All chunk extensions of a body together: they are dropped, so nobody needs many.
    pub(crate) chunk_extension_bytes: usize,
    pub(crate) trailer_bytes: usize,
}

/// What the stack holds tokens for; no configuration raises it.
pub(crate) const MAX_FIELDS: usize = 256;

/// The longest registered method has 17 bytes (UPDATEREDIRECTREF).
const METHOD_BYTES: usize = 64;

impl Limits {
    /// For what a peer proxy sends: it accepted a message within these limits
    /// and may have added its own fields, which must not be what breaks it.
    pub(crate) const fn of_mesh(self) -> Self {
        Self {
            head_bytes: self.head_bytes.saturating_add(1024),
            fields: self.fields.saturating_add(8),
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Above what servers accept by default (nginx 32 KiB, Node 16 KiB,
            // Tomcat 8 KiB), so that the application is the one who refuses.
            head_bytes: 64 * 1024,
            // Envoy and hyper stop at 100.
            fields: 128,
            target_bytes: 16 * 1024,
            chunk_extension_bytes: 4 * 1024,
            trailer_bytes: 64 * 1024,
        }
    }
}
