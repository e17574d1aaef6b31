//! One form for every path, or none.
//!
//! Where a port has path rules, a request's path is brought into this form
//! once; rules are asked about it and it is what is forwarded. A path that
//! software behind us may read in two ways is refused (RFC 3986 §6.2.2 says
//! what is equivalent; the rest comes from what went wrong elsewhere: see the
//! table in `tests`).
//!
//! Changed: percent-encoded unreserved characters are decoded (§6.2.2.2), hex
//! digits become capitals (§6.2.2.1). Nothing else is: reserved characters
//! keep the spelling that the caller chose ("C%2B%2B" is not "C++" to all).
//! Refused: what isn't a path; dot segments and empty segments, which some
//! resolve and some don't; path parameters (";"), which some strip; encoded
//! slashes, backslashes and control characters; anything that a second
//! decoding would change; bytes that are not UTF-8, overlong forms included;
//! full-width forms of "/", "\" and "."; raw bytes that RFC 3986 has no place for.

use std::borrow::Cow;

/// The path has no single canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ambiguous;

/// The canonical form of a request's path; borrowed where it is that already.
pub(crate) fn canonical(raw: &[u8]) -> Result<Cow<'_, [u8]>, Ambiguous> {
    if raw.first() != Some(&b'/') {
        return Err(Ambiguous);
    }
    if raw.iter().all(|byte| is_plain(*byte)) {
        check_segments(raw)?;
        return Ok(Cow::Borrowed(raw));
    }
    let form = respell(raw)?;
    check_segments(&form)?;
    check_decoded(&form)?;
    Ok(if form == raw {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(form)
    })
}

/// The canonical form of a rule's segment prefix, without its trailing slash:
/// "" is all. What a URL can't hold raw is encoded first.
pub(crate) fn prefix(text: &str) -> Result<Box<str>, Ambiguous> {
    let mut form = exact(text)?.into_string();
    if form.ends_with('/') {
        form.pop();
    }
    Ok(form.into())
}

/// The canonical form of a rule's whole path.
pub(crate) fn exact(text: &str) -> Result<Box<str>, Ambiguous> {
    let mut encoded = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) || matches!(byte, b'%' | b';') {
            encoded.push(byte);
        } else {
            push_encoded(&mut encoded, byte);
        }
    }
    let form = canonical(&encoded)?;
    // ASCII by now: everything else is percent-encoded.
    std::str::from_utf8(&form)
        .map(Into::into)
        .map_err(|_| Ambiguous)
}

/// By segments, byte for byte: "/a" covers "/a" and "/a/b", not "/ab".
pub(crate) fn covers(prefix: &str, path: &[u8]) -> bool {
    let rest = path.strip_prefix(prefix.as_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// As an application sees it that decodes first: "/a!" covers "/a%21/b" too.
pub(crate) fn covers_decoded(prefix: &str, path: &[u8]) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let mut path = decoded(path);
    decoded(prefix.as_bytes()).all(|byte| path.next() == Some(byte))
        && matches!(path.next(), None | Some(b'/'))
}

/// May stand in a path as it is. Not ";" and "%", which need a look.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b':'
                | b'@'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
        )
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn respell(raw: &[u8]) -> Result<Vec<u8>, Ambiguous> {
    let mut form = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            if !is_plain(byte) {
                return Err(Ambiguous);
            }
            form.push(byte);
            continue;
        }
        let value = bytes
            .next()
            .zip(bytes.next())
            .and_then(|(high, low)| hex(high, low))
            .ok_or(Ambiguous)?;
        match value {
            b'/' | b'\\' | b';' | 0..=0x1f | 0x7f => return Err(Ambiguous),
            _ if is_unreserved(value) => form.push(value),
            _ => push_encoded(&mut form, value),
        }
    }
    Ok(form)
}

fn check_segments(path: &[u8]) -> Result<(), Ambiguous> {
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if matches!(segment, b"." | b"..") || (segment.is_empty() && !is_last) {
            return Err(Ambiguous);
        }
    }
    Ok(())
}

fn check_decoded(form: &[u8]) -> Result<(), Ambiguous> {
    let once: Vec<u8> = decoded(form).collect();
    // A percent sign that decoding left must not begin another escape.
    let is_escape =
        |window: &[u8]| matches!(window, [b'%', high, low] if hex(*high, *low).is_some());
    let text = std::str::from_utf8(&once).map_err(|_| Ambiguous)?;
    let has_lookalike = text.contains(['\u{ff0f}', '\u{ff3c}', '\u{ff0e}']);
    if once.windows(3).any(is_escape) || has_lookalike {
        Err(Ambiguous)
    } else {
        Ok(())
    }
}

/// Percent-decoded, once; what is no escape stays.
fn decoded(path: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = path;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        if let ([b'%', high, low, after @ ..], true) = (rest, *first == b'%')
            && let Some(value) = hex(*high, *low)
        {
            rest = after;
            return Some(value);
        }
        rest = after;
        Some(*first)
    })
}

pub(super) fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

fn push_encoded(form: &mut Vec<u8>, value: u8) {
    let digit = |value: u8| {
        if value < 10 {
            b'0' + value
        } else {
            b'A' + value - 10
        }
    };
    form.extend([b'%', digit(value >> 4), digit(value & 15)]);
}

#[cfg(test)]
mod tests;
