//! Takes a body out of a buffer, piece by piece, without copying.
//!
//! Comes after a head, for both legs. Between two calls it holds a few
//! numbers; the bytes stay in the caller's buffer, whose size is the caller's
//! back-pressure. Chunk extensions are checked and dropped (RFC 9112 §7.1.1).

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use super::head::parse_trailers;
use super::{Bad, Fields, Framing, Limits, Scanner};

/// One step of a body.
#[derive(Clone, Debug)]
pub(crate) enum Decoded {
    Data(Bytes),
    /// The trailer section, only if it is not empty; then comes `End`.
    Trailers(Box<Fields>),
    /// Nothing can be told before more bytes arrive.
    NeedMore,
    /// The message is over; what is left in the buffer belongs to the next one.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// So many bytes are left of a body with a length.
    Length(u64),
    UntilClose,
    /// A chunk's size line is next.
    Size,
    /// So many bytes are left of a chunk.
    Chunk(u64),
    /// A chunk's CRLF is next.
    ChunkEnd,
    Trailers,
    Done,
}

/// Decodes one body.
#[derive(Clone, Debug)]
pub(crate) struct BodyDecoder {
    state: State,
    scanner: Scanner,
    /// What is left of the body's chunk extensions.
    extension_bytes: usize,
    limits: Limits,
}

/// Sixteen digits hold 64 bits; more are refused even if they are zeros.
const SIZE_DIGITS: usize = 16;

impl BodyDecoder {
    pub(crate) fn new(framing: Framing, limits: &Limits) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            scanner: Scanner::new(),
            extension_bytes: limits.chunk_extension_bytes,
            limits: *limits,
        }
    }

    /// Has the whole body been given out?
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next piece from the front of `buffer`.
    pub(crate) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Bad> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                _ if buffer.is_empty() => return Ok(Decoded::NeedMore),
                State::UntilClose => return Ok(Decoded::Data(buffer.split().freeze())),
                State::Length(left) => {
                    let (data, left) = take(buffer, left);
                    self.state = if left == 0 {
                        State::Done
                    } else {
                        State::Length(left)
                    };
                    return Ok(Decoded::Data(data));
                }
                State::Chunk(left) => {
                    let (data, left) = take(buffer, left);
                    self.state = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::Chunk(left)
                    };
                    return Ok(Decoded::Data(data));
                }
                State::ChunkEnd => {
                    if !skip_line_end(buffer)? {
                        return Ok(Decoded::NeedMore);
                    }
                    self.state = State::Size;
                }
                State::Size => match self.take_size(buffer)? {
                    None => return Ok(Decoded::NeedMore),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Chunk(size),
                },
                State::Trailers => match parse_trailers(buffer, &mut self.scanner, &self.limits)? {
                    None => return Ok(Decoded::NeedMore),
                    Some(fields) => {
                        self.state = State::Done;
                        if !fields.is_empty() {
                            return Ok(Decoded::Trailers(Box::new(fields)));
                        }
                    }
                },
            }
        }
    }

    /// The connection has ended, and `decode` has taken what there was.
    pub(crate) fn end_of_stream(&mut self) -> Result<(), Bad> {
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            State::Length(_)
            | State::Size
            | State::Chunk(_)
            | State::ChunkEnd
            | State::Trailers => Err(Bad::Truncated),
        }
    }

    /// Reads a whole size line, or nothing: `chunk-size [ chunk-ext ] CRLF`.
    fn take_size(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, Bad> {
        // Bounded, so looking at it again after each read stays cheap.
        let longest = SIZE_DIGITS
            .saturating_add(self.extension_bytes)
            .saturating_add("\r\n".len());
        let window = buffer.get(..longest.min(buffer.len())).unwrap_or_default();
        judge_size_start(window)?;
        let Some(end) = memchr(b'\n', window) else {
            return if window.len() < longest {
                Ok(None)
            } else {
                Err(Bad::ChunkExtensionsTooLarge)
            };
        };
        let line = window.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").ok_or(Bad::BareLf)?;
        let (size, extension) = parse_size(line)?;
        judge_extension(extension)?;
        self.extension_bytes = self
            .extension_bytes
            .checked_sub(extension.len())
            .ok_or(Bad::ChunkExtensionsTooLarge)?;
        buffer.advance(end.saturating_add(1));
        Ok(Some(size))
    }
}

/// As much of `left` as the buffer holds, and what is left then.
fn take(buffer: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let length = usize::try_from(left)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    let data = buffer.split_to(length).freeze();
    (data, left.saturating_sub(length as u64))
}

fn skip_line_end(buffer: &mut BytesMut) -> Result<bool, Bad> {
    match buffer.as_ref() {
        [b'\r', b'\n', ..] => {
            buffer.advance("\r\n".len());
            Ok(true)
        }
        [] | [b'\r'] => Ok(false),
        _ => Err(Bad::ChunkEnd),
    }
}

/// Refuses a size line, complete or not, as soon as nothing can save it.
fn judge_size_start(window: &[u8]) -> Result<(), Bad> {
    let digits = window
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    if digits > SIZE_DIGITS {
        return Err(Bad::ChunkSizeOverflow);
    }
    match window.get(digits) {
        None | Some(b'\n') => Ok(()),
        Some(b'\r' | b';' | b' ' | b'\t') if digits > 0 => Ok(()),
        Some(_) => Err(Bad::ChunkSize),
    }
}

/// `1*HEXDIG`, and what follows it on the line.
fn parse_size(line: &[u8]) -> Result<(u64, &[u8]), Bad> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (digits, rest) = line.split_at_checked(digits).ok_or(Bad::ChunkSize)?;
    let text = str::from_utf8(digits).map_err(|_| Bad::ChunkSize)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| Bad::ChunkSize)?;
    Ok((size, rest))
}

/// Nothing, or `*( BWS ";" BWS … )`. White space alone is no extension; what
/// follows the semicolon is dropped, so only bytes that no line may hold matter.
fn judge_extension(extension: &[u8]) -> Result<(), Bad> {
    let visible = extension.trim_ascii_start();
    match (extension.first(), visible.first()) {
        (None, _) => return Ok(()),
        (Some(_), Some(b';')) => {}
        (Some(b' ' | b'\t' | b';'), _) => return Err(Bad::ChunkExtension),
        _ => return Err(Bad::ChunkSize),
    }
    if extension.contains(&b'\r') {
        return Err(Bad::BareCr);
    }
    if extension
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return Err(Bad::ChunkExtension);
    }
    Ok(())
}
