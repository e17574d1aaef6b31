//! Request and response heads.
//!
//! Comes after `scan` has found where a head ends and before the body is
//! decoded. A head that exists has passed every check of syntax, target,
//! `Host` and framing: there is no half-checked one.

use bytes::{Bytes, BytesMut};

use super::fields::{Entries, Span, room};
use super::framing::{Asked, Survey};
use super::scan::Section;
use super::target::{self, Target};
use super::{Bad, Fields, Framing, Limits, METHOD_BYTES, Scanner};
use crate::http::headers::{Name, members};

/// The versions that this codec speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Version {
    Http10,
    Http11,
}

impl Version {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }

    fn of(minor: Option<u8>) -> Result<Self, Bad> {
        match minor {
            Some(0) => Ok(Self::Http10),
            Some(1) => Ok(Self::Http11),
            _ => Err(Bad::Version),
        }
    }
}

/// A request's head.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    method: Span,
    target: Span,
    form: Target,
    version: Version,
    fields: Fields,
    survey: Survey,
}

impl RequestHead {
    pub(crate) fn method(&self) -> &str {
        // A token is ASCII, so this can't fail.
        str::from_utf8(self.fields.part(self.method)).unwrap_or_default()
    }

    /// The target as it came, whatever its form.
    pub(crate) fn target(&self) -> &[u8] {
        self.fields.part(self.target)
    }

    /// The path as it came; `/` where an absolute form has none, `*` for `OPTIONS *`.
    pub(crate) fn path(&self) -> &[u8] {
        self.form.path(self.target())
    }

    /// What follows the first `?`.
    pub(crate) fn query(&self) -> Option<&[u8]> {
        self.form.query(self.target())
    }

    /// Scheme and authority of an absolute form; else nothing.
    pub(super) fn before_path(&self) -> &[u8] {
        let query = self
            .query()
            .map_or(0, |query| query.len().saturating_add(1));
        let target = self.target();
        let before_query = target
            .get(..target.len().saturating_sub(query))
            .unwrap_or_default();
        before_query
            .strip_suffix(self.path())
            .unwrap_or(before_query)
    }

    /// Who is asked: the authority of an absolute form, else `Host`.
    pub(crate) fn authority(&self) -> Option<&[u8]> {
        self.form.authority(self.target()).or_else(|| self.host())
    }

    fn host(&self) -> Option<&[u8]> {
        self.fields
            .iter()
            .find(|field| field.class == Name::Host)
            .map(|field| field.value)
    }

    pub(crate) const fn version(&self) -> Version {
        self.version
    }

    pub(crate) const fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(super) const fn survey(&self) -> &Survey {
        &self.survey
    }

    /// What decides how its answer is framed and written.
    pub(crate) fn asked(&self) -> Asked {
        Asked {
            version: self.version,
            head: self.method() == "HEAD",
            upgrade: self.is_websocket_upgrade(),
        }
    }

    /// May another request follow on the connection (RFC 9112 §9.3)?
    pub(crate) fn keeps_alive(&self) -> bool {
        self.survey.keeps_alive(self.version)
    }

    #[cfg(test)]
    /// Does the client wait for 100 before it sends the body (RFC 9110 §10.1.1)?
    pub(crate) fn expects_continue(&self) -> bool {
        self.version == Version::Http11
            && self.survey.framing(Framing::None) != Framing::None
            && self.fields.contains_token("expect", "100-continue")
    }

    /// The only upgrade that the mesh carries (RFC 6455 §4.1).
    pub(crate) fn is_websocket_upgrade(&self) -> bool {
        self.version == Version::Http11
            && self.method() == "GET"
            && self.survey.framing(Framing::None) == Framing::None
            && self.survey.upgrades()
            && offers_websocket(&self.fields)
    }
}

/// A response's head, informational ones included.
#[derive(Clone, Debug)]
pub(crate) struct ResponseHead {
    status: u16,
    reason: Span,
    version: Version,
    fields: Fields,
    survey: Survey,
}

impl ResponseHead {
    pub(crate) const fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase, which may be empty and need not be ASCII.
    pub(crate) fn reason(&self) -> &[u8] {
        self.fields.part(self.reason)
    }

    pub(crate) const fn version(&self) -> Version {
        self.version
    }

    pub(crate) const fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(super) const fn survey(&self) -> &Survey {
        &self.survey
    }

    /// 1xx other than 101: another head follows.
    pub(crate) const fn is_informational(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != 101
    }

    /// May the connection be used again once the body has ended? A body that
    /// ends with the connection says no by itself.
    pub(crate) fn keeps_alive(&self) -> bool {
        self.survey.keeps_alive(self.version)
    }

    /// Does a 101 switch to what the mesh carries?
    pub(crate) fn is_websocket_upgrade(&self) -> bool {
        self.survey.upgrades() && offers_websocket(&self.fields)
    }
}

fn offers_websocket(fields: &Fields) -> bool {
    fields
        .iter()
        .filter(|field| field.class == Name::Upgrade)
        .flat_map(|field| members(field.value))
        .any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// Takes one request head from the front of `buffer`, and nothing behind it.
/// `None`: it is not complete yet; call again when there are more bytes.
pub(crate) fn parse_request(
    buffer: &mut BytesMut,
    scanner: &mut Scanner,
    limits: &Limits,
) -> Result<Option<RequestHead>, Bad> {
    let Some(block) = take_block(buffer, scanner, Section::Request, limits)? else {
        return Ok(None);
    };
    let mut tokens = room();
    let mut request = httparse::Request::new(&mut []);
    let complete = request.parse_with_uninit_headers(&block, &mut tokens);
    let method = request.method.unwrap_or_default();
    if method == "CONNECT" {
        return Err(Bad::Connect);
    }
    match complete {
        Ok(httparse::Status::Complete(length)) if length == block.len() => {}
        Ok(_) => return Err(Bad::RequestLine),
        Err(error) => return Err(diagnose_request(&block, error, &request)),
    }
    let uri = request.path.unwrap_or_default();
    if method.len() > METHOD_BYTES {
        return Err(Bad::Method);
    }
    if uri.len() > limits.target_bytes {
        return Err(Bad::TargetTooLong);
    }
    let version = Version::of(request.version)?;
    let form = target::judge(method, uri.as_bytes())?;
    let spans = Span::of(&block, method.as_bytes()).zip(Span::of(&block, uri.as_bytes()));
    let entries = Entries::of(&block, request.headers);
    let (Some((method, target)), Some(entries)) = (spans, entries) else {
        return Err(Bad::RequestLine);
    };
    let fields = Fields::new(block, entries);
    let survey = Survey::of(&fields, version)?;
    target::judge_host(form, fields.part(target), &fields, version)?;
    Ok(Some(RequestHead {
        method,
        target,
        form,
        version,
        fields,
        survey,
    }))
}

/// Takes one response head, informational or final. As [`parse_request`].
pub(crate) fn parse_response(
    buffer: &mut BytesMut,
    scanner: &mut Scanner,
    limits: &Limits,
) -> Result<Option<ResponseHead>, Bad> {
    let Some(block) = take_block(buffer, scanner, Section::Response, limits)? else {
        return Ok(None);
    };
    let mut tokens = room();
    let mut response = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        &block,
        &mut tokens,
    ) {
        Ok(httparse::Status::Complete(length)) if length == block.len() => {}
        Ok(_) => return Err(Bad::StatusLine),
        Err(error) => return Err(diagnose(&block, error, Bad::StatusLine)),
    }
    let version = Version::of(response.version)?;
    let status = response
        .code
        .filter(|code| (100..=999).contains(code))
        .ok_or(Bad::StatusLine)?;
    let reason = reason_of(&block);
    let entries = Entries::of(&block, response.headers).ok_or(Bad::StatusLine)?;
    let fields = Fields::new(block, entries);
    let survey = Survey::of(&fields, version)?;
    survey.judge_status(status)?;
    Ok(Some(ResponseHead {
        status,
        reason,
        version,
        fields,
        survey,
    }))
}

/// httparse hides a reason phrase with non-ASCII bytes; RFC 9112 §4 allows them.
fn reason_of(block: &[u8]) -> Span {
    let line = memchr::memchr(b'\r', block)
        .and_then(|end| block.get(..end))
        .unwrap_or_default();
    let reason = line.get("HTTP/1.1 200 ".len()..).unwrap_or_default();
    Span::of(block, reason).unwrap_or_default()
}

fn take_block(
    buffer: &mut BytesMut,
    scanner: &mut Scanner,
    section: Section,
    limits: &Limits,
) -> Result<Option<Bytes>, Bad> {
    let Some(found) = scanner.scan(buffer, section, limits)? else {
        return Ok(None);
    };
    let mut block = buffer.split_to(found.end.min(buffer.len()));
    if found.start > 0 {
        drop(block.split_to(found.start.min(block.len())));
    }
    Ok(Some(block.freeze()))
}

/// Takes a trailer section with the empty line that ends it.
pub(super) fn parse_trailers(
    buffer: &mut BytesMut,
    scanner: &mut Scanner,
    limits: &Limits,
) -> Result<Option<Fields>, Bad> {
    let Some(block) = take_block(buffer, scanner, Section::Trailers, limits)? else {
        return Ok(None);
    };
    let mut tokens = [httparse::EMPTY_HEADER; super::MAX_FIELDS];
    let entries = match httparse::parse_headers(&block, &mut tokens) {
        Ok(httparse::Status::Complete((length, found))) if length == block.len() => {
            Entries::of(&block, found)
        }
        Ok(_) => return Err(Bad::FieldName),
        Err(error) => return Err(diagnose(&block, error, Bad::FieldName)),
    };
    let fields = Fields::new(block, entries.ok_or(Bad::FieldName)?);
    if fields.iter().any(|field| !field.class.trailer_may_carry()) {
        return Err(Bad::TrailerForbidden);
    }
    Ok(Some(fields))
}

fn diagnose_request(
    block: &[u8],
    error: httparse::Error,
    request: &httparse::Request<'_, '_>,
) -> Bad {
    let start_line = match error {
        httparse::Error::Version if request.path.is_some() => Bad::Version,
        httparse::Error::Token if request.method.is_none() => Bad::Method,
        httparse::Error::Token => Bad::TargetByte,
        _ => Bad::RequestLine,
    };
    diagnose(block, error, start_line)
}

/// Names what httparse refused, so that an operator can find it. The verdict
/// does not depend on it: the head is refused anyway.
fn diagnose(block: &[u8], error: httparse::Error, start_line: Bad) -> Bad {
    let is_bare = |at: usize| block.get(at.saturating_add(1)) != Some(&b'\n');
    if memchr::memchr_iter(b'\r', block).any(is_bare) {
        return Bad::BareCr;
    }
    if memchr::memchr(0, block).is_some() {
        return Bad::Nul;
    }
    match error {
        httparse::Error::HeaderName => diagnose_name(block),
        httparse::Error::HeaderValue => Bad::ControlByte,
        httparse::Error::TooManyHeaders => Bad::TooManyFields,
        httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token
        | httparse::Error::Version => start_line,
    }
}

fn diagnose_name(block: &[u8]) -> Bad {
    for line in block.split(|byte| *byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else {
            return if line.is_empty() {
                continue;
            } else {
                Bad::MissingColon
            };
        };
        let name = line.get(..colon).unwrap_or_default();
        if name.last().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            return Bad::SpaceBeforeColon;
        }
        if !target::is_token(name) {
            return Bad::FieldName;
        }
    }
    Bad::FieldName
}
