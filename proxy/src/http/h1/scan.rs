//! Finds where a head or a trailer section ends.
//!
//! Comes before the tokens: it judges line ends, empty lines, folding and
//! sizes, and remembers how far it looked, so that a peer who sends one byte
//! at a time costs one look at each byte.

use memchr::memchr;

use super::{Bad, Limits};

/// What the lines belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Section {
    Request,
    Response,
    Trailers,
}

/// How far the head at the front of a buffer has been looked at. One for each
/// direction of a connection; after a head it is ready for the next one.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Scanner {
    /// Where the section begins: after the one empty line tolerated before a request.
    start: usize,
    /// Where the current line begins.
    line: usize,
    /// Everything before it has been searched for a line feed.
    scanned: usize,
    /// Complete lines so far.
    lines: usize,
}

/// Where a complete section lies in the buffer.
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A method and its two spaces and version may precede and follow a target.
const REQUEST_LINE_SLACK: usize = super::METHOD_BYTES + " ".len() + " HTTP/1.1\r\n".len();

impl Scanner {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Has any byte of the next head been seen, the tolerated empty line aside?
    /// Tells a slow head from an idle connection.
    pub(crate) fn has_begun(&self) -> bool {
        self.scanned > self.start
    }

    pub(super) fn scan(
        &mut self,
        buffer: &[u8],
        section: Section,
        limits: &Limits,
    ) -> Result<Option<Found>, Bad> {
        let bytes = match section {
            Section::Request | Section::Response => limits.head_bytes,
            Section::Trailers => limits.trailer_bytes,
        };
        loop {
            let rest = buffer.get(self.scanned..).unwrap_or_default();
            let Some(at) = memchr(b'\n', rest) else {
                self.scanned = buffer.len();
                self.check_size(buffer, buffer.len(), section, bytes, limits)?;
                return Ok(None);
            };
            let end = self.scanned.saturating_add(at).saturating_add(1);
            self.check_size(buffer, end, section, bytes, limits)?;
            let line = buffer.get(self.line..end).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r\n") else {
                return Err(Bad::BareLf);
            };
            let is_last = self.judge(line, section, limits)?;
            self.line = end;
            self.scanned = end;
            if is_last {
                let start = self.start;
                *self = Self::default();
                return Ok(Some(Found { start, end }));
            }
        }
    }

    /// Judges a complete line, given without its CRLF. Is it the one that ends the section?
    fn judge(&mut self, line: &[u8], section: Section, limits: &Limits) -> Result<bool, Bad> {
        let start_lines = usize::from(section != Section::Trailers);
        match line.first() {
            None if self.lines >= start_lines => return Ok(true),
            None if section == Section::Request && self.line == 0 => {
                // "A server SHOULD ignore at least one empty line (CRLF) received
                // prior to the request-line" (RFC 9112 §2.2); at most one is enough.
                self.start = "\r\n".len();
                return Ok(false);
            }
            None => return Err(Bad::BlankLine),
            Some(b' ' | b'\t') if self.lines <= start_lines => return Err(Bad::LeadingSpace),
            Some(b' ' | b'\t') => return Err(Bad::ObsFold),
            Some(_) => self.lines = self.lines.saturating_add(1),
        }
        let fields = self.lines.saturating_sub(start_lines);
        if fields > limits.fields.min(super::MAX_FIELDS) {
            return Err(match section {
                Section::Trailers => Bad::TrailersTooLarge,
                Section::Request | Section::Response => Bad::TooManyFields,
            });
        }
        Ok(false)
    }

    /// Refuses as soon as the bytes up to `end` are too many, complete or not.
    fn check_size(
        &self,
        buffer: &[u8],
        end: usize,
        section: Section,
        bytes: usize,
        limits: &Limits,
    ) -> Result<(), Bad> {
        let in_request_line = section == Section::Request && self.lines == 0;
        if in_request_line
            && end.saturating_sub(self.line)
                > limits.target_bytes.saturating_add(REQUEST_LINE_SLACK)
        {
            let line = buffer.get(self.line..end).unwrap_or_default();
            let has_method = line
                .iter()
                .take(super::METHOD_BYTES + 1)
                .any(|byte| *byte == b' ');
            return Err(if has_method {
                Bad::TargetTooLong
            } else {
                Bad::Method
            });
        }
        if end.saturating_sub(self.start) > bytes {
            return Err(match section {
                Section::Trailers => Bad::TrailersTooLarge,
                Section::Request | Section::Response => Bad::HeadTooLarge,
            });
        }
        Ok(())
    }
}
