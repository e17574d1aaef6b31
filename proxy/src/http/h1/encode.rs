//! Heads and bodies back to bytes, for the next hop.
//!
//! Comes last on a leg. Removes what belongs to one hop (RFC 9110 §7.6.1),
//! writes what this hop says instead, and copies every other line as it came.
//! It adds nothing else: no `date`, `server` or `via`.

use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::fields::Line;
use super::framing::Survey;
use super::{Asked, Field, Fields, Framing, RequestHead, ResponseHead, Version};
use crate::{
    discovery::FieldEdits,
    http::headers::{Name, members},
};

/// Is the connection meant to carry another message?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Persistence {
    KeepAlive,
    Close,
}

/// What this hop changes in a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit<'a> {
    /// How the body that follows is going to be written.
    pub(crate) framing: Framing,
    pub(crate) persistence: Persistence,
    /// Takes the place of a request's own path; the rest of the target stays.
    pub(crate) path: Option<&'a [u8]>,
    /// Takes the place of a request's own host, in `Host` and in the target.
    pub(crate) host: Option<&'a [u8]>,
    /// What a route's filters change.
    pub(crate) fields: Option<&'a FieldEdits>,
    /// Fields added at the end.
    pub(crate) extra: &'a [(HeaderName, HeaderValue)],
}

/// What `Connection` is going to say.
type Options = SmallVec<[u8; 32]>;

/// What the message says about this hop once it is written.
struct Hop {
    options: Options,
    /// TE and Upgrade are only kept in these forms.
    trailers: bool,
    websocket: bool,
    encoding: bool,
    length: Option<u64>,
    /// The start line goes as it came.
    keeps_start: bool,
}

/// Writes a request's head: its start line and version as they came.
pub(crate) fn encode_request(out: &mut BytesMut, head: &RequestHead, edit: &Edit<'_>) {
    let survey = head.survey();
    let trailers =
        head.version() == Version::Http11 && head.fields().contains_token("te", "trailers");
    let websocket = head.is_websocket_upgrade();
    let spoken = Spoken {
        explicit_keep_alive: head.version() == Version::Http10,
        version: head.version(),
    };
    let hop = Hop {
        options: options(survey, edit.persistence, spoken, trailers, websocket),
        trailers,
        websocket,
        encoding: edit.framing == Framing::Chunked,
        length: announced(edit.framing),
        keeps_start: edit.path.is_none() && (edit.host.is_none() || head.before_path().is_empty()),
    };
    if !hop.keeps_start {
        write_request_line(out, head, edit);
    }
    write_head(out, head.fields(), survey, edit, &hop);
}

fn write_request_line(out: &mut BytesMut, head: &RequestHead, edit: &Edit<'_>) {
    out.extend_from_slice(head.method().as_bytes());
    out.put_u8(b' ');
    let before = head.before_path();
    let scheme = memchr::memmem::find(before, b"://").map_or(0, |at| at + "://".len());
    match edit.host.filter(|_| !before.is_empty()) {
        Some(host) => {
            out.extend_from_slice(before.get(..scheme).unwrap_or_default());
            out.extend_from_slice(host);
        }
        None => out.extend_from_slice(before),
    }
    out.extend_from_slice(edit.path.unwrap_or_else(|| head.path()));
    if let Some(query) = head.query() {
        out.put_u8(b'?');
        out.extend_from_slice(query);
    }
    out.put_u8(b' ');
    out.extend_from_slice(head.version().as_str().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a response's head for the one who asked, its status line as it came.
pub(crate) fn encode_response(
    out: &mut BytesMut,
    head: &ResponseHead,
    asked: Asked,
    edit: &Edit<'_>,
) {
    let survey = head.survey();
    let websocket = asked.upgrade && head.is_websocket_upgrade();
    let spoken = Spoken {
        explicit_keep_alive: head.version() == Version::Http10 || asked.version == Version::Http10,
        version: head.version(),
    };
    // Where there is no body, the field says what a GET would have had (RFC 9112 §6.1).
    let describes =
        edit.framing == Framing::None && survey.is_chunked() && asked.version == Version::Http11;
    let hop = Hop {
        options: match head.status() {
            101 => options(survey, Persistence::KeepAlive, spoken, false, websocket),
            // Other informational heads say nothing about the connection.
            100..=199 => Options::new(),
            _ => options(survey, edit.persistence, spoken, false, websocket),
        },
        trailers: false,
        websocket,
        encoding: edit.framing == Framing::Chunked || describes,
        length: announced(edit.framing),
        keeps_start: true,
    };
    write_head(out, head.fields(), survey, edit, &hop);
}

/// Writes a whole response of our own.
pub(crate) fn encode_answer(
    out: &mut BytesMut,
    status: http::StatusCode,
    fields: &[(HeaderName, HeaderValue)],
    body: &[u8],
    asked: Asked,
    persistence: Persistence,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    write_extra(out, fields);
    // RFC 9110 §8.6: never in a 204.
    if status != http::StatusCode::NO_CONTENT {
        write_number(out, b"content-length: ", body.len() as u64);
    }
    match persistence {
        Persistence::Close => out.extend_from_slice(b"connection: close\r\n"),
        Persistence::KeepAlive if asked.version == Version::Http10 => {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        Persistence::KeepAlive => {}
    }
    out.extend_from_slice(b"\r\n");
    if !asked.head {
        out.extend_from_slice(body);
    }
}

/// Which defaults of persistence the reader of a head goes by.
#[derive(Clone, Copy)]
struct Spoken {
    explicit_keep_alive: bool,
    version: Version,
}

fn options(
    survey: &Survey,
    persistence: Persistence,
    spoken: Spoken,
    trailers: bool,
    websocket: bool,
) -> Options {
    let mut options = Options::new();
    let mut add = |option: &str| {
        if !options.is_empty() {
            options.extend_from_slice(b", ");
        }
        options.extend_from_slice(option.as_bytes());
    };
    match persistence {
        Persistence::KeepAlive if spoken.explicit_keep_alive => add("keep-alive"),
        // HTTP/1.0 closes by itself.
        Persistence::Close if spoken.version == Version::Http11 || survey.closes() => add("close"),
        Persistence::KeepAlive | Persistence::Close => {}
    }
    if trailers {
        add("TE");
    }
    if websocket {
        add("Upgrade");
    }
    options
}

const fn announced(framing: Framing) -> Option<u64> {
    match framing {
        Framing::Length(length) => Some(length),
        Framing::None | Framing::Chunked | Framing::UntilClose => None,
    }
}

fn write_head(out: &mut BytesMut, fields: &Fields, survey: &Survey, edit: &Edit<'_>, hop: &Hop) {
    let nominated: SmallVec<[&[u8]; 4]> = if survey.nominates() {
        let connection = fields
            .iter()
            .filter(|field| field.class == Name::Connection);
        connection.flat_map(|field| members(field.value)).collect()
    } else {
        SmallVec::new()
    };
    let drops_length = matches!(edit.framing, Framing::Chunked | Framing::UntilClose);
    let mut owed = Owed {
        connection: !hop.options.is_empty(),
        te: hop.trailers,
        upgrade: hop.websocket,
        host: edit.host.is_some(),
    };
    fields.write(out, hop.keeps_start, |field| {
        if nominated
            .iter()
            .any(|name| name.eq_ignore_ascii_case(field.name))
            && !field.class.is_hop_by_hop()
        {
            return Line::Drop;
        }
        match field.class {
            Name::Connection => once(&mut owed.connection, &hop.options),
            Name::Te => once(&mut owed.te, b"trailers"),
            Name::Upgrade => once(&mut owed.upgrade, b"websocket"),
            Name::TransferEncoding if hop.encoding => Line::Keep,
            Name::ContentLength if drops_length => Line::Drop,
            Name::Trailer if edit.framing == Framing::UntilClose => Line::Drop,
            Name::Mesh => Line::Drop,
            Name::Host => match edit.host {
                Some(host) => once(&mut owed.host, host),
                None => Line::Keep,
            },
            class if class.is_hop_by_hop() => Line::Drop,
            _ if edit.fields.is_some_and(|edits| edits.drops(field.name)) => Line::Drop,
            _ => Line::Keep,
        }
    });
    if let Some(host) = edit.host.filter(|_| owed.host) {
        write_line(out, b"host", host);
    }
    if let Some(length) = hop.length.filter(|_| !survey.has_length()) {
        write_number(out, b"content-length: ", length);
    }
    if hop.encoding && !survey.is_chunked() {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if owed.connection {
        out.extend_from_slice(b"connection: ");
        out.extend_from_slice(&hop.options);
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in edit.fields.into_iter().flat_map(FieldEdits::added) {
        write_line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    write_extra(out, edit.extra);
    out.extend_from_slice(b"\r\n");
}

/// Which rewritten fields have not been written yet.
struct Owed {
    connection: bool,
    te: bool,
    upgrade: bool,
    host: bool,
}

/// The first line of that name takes the value, further ones go.
fn once<'a>(owed: &mut bool, value: &'a [u8]) -> Line<'a> {
    if std::mem::take(owed) {
        Line::Value(value)
    } else {
        Line::Drop
    }
}

fn write_extra(out: &mut BytesMut, extra: &[(HeaderName, HeaderValue)]) {
    for (name, value) in extra {
        write_line(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

fn write_line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_number(out: &mut BytesMut, prefix: &[u8], number: u64) {
    out.extend_from_slice(prefix);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a whole chunk. An empty one would end the body, so it writes nothing.
pub(crate) fn encode_chunk(out: &mut BytesMut, data: &[u8]) {
    if !data.is_empty() {
        encode_chunk_start(out, data.len());
        out.extend_from_slice(data);
        encode_chunk_end(out);
    }
}

/// The size line, for a caller that writes `length` (> 0) bytes of data without copying them.
pub(crate) fn encode_chunk_start(out: &mut BytesMut, length: usize) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let nibble = (length >> (digit * 4)) & 0xf;
        out.put_u8(char::from_digit(nibble as u32, 16).map_or(b'0', |digit| digit as u8));
    }
    out.extend_from_slice(b"\r\n");
}

/// What follows a chunk's data.
pub(crate) fn encode_chunk_end(out: &mut BytesMut) {
    out.extend_from_slice(b"\r\n");
}

/// Ends a chunked body, with the trailers that it came with.
pub(crate) fn encode_last_chunk(out: &mut BytesMut, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write(out, true, |field: Field<'_>| match field.class {
            Name::Mesh => Line::Drop,
            _ => Line::Keep,
        });
    }
    out.extend_from_slice(b"\r\n");
}
