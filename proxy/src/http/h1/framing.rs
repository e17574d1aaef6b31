//! Where a message's body ends, and whether the connection outlives it.
//!
//! The one reading of `Content-Length`, `Transfer-Encoding` and `Connection`:
//! made while a head is parsed, asked for by everyone else. RFC 9112 §6 and §9.

use super::{Bad, Fields, RequestHead, ResponseHead, Version};
use crate::http::headers::{Name, members};

/// How a body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    Length(u64),
    Chunked,
    /// The body ends with the connection: HTTP/1.0, and lenient servers.
    UntilClose,
}

/// What of a request decides how its response is framed and written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    pub(crate) version: Version,
    /// The method is HEAD.
    pub(crate) head: bool,
    /// A WebSocket upgrade was asked for.
    pub(crate) upgrade: bool,
}

impl Asked {
    /// "A server MUST NOT send a 1xx response to an HTTP/1.0 client" (RFC 9110 §15.2).
    pub(crate) fn takes_informational(self) -> bool {
        self.version == Version::Http11
    }

    /// How a response of this framing is written to the asker: HTTP/1.0 knows
    /// no chunks (RFC 9112 §6.1), its body ends with the connection.
    pub(crate) fn reframe(self, framing: Framing) -> Framing {
        match framing {
            Framing::Chunked if self.version == Version::Http10 => Framing::UntilClose,
            same => same,
        }
    }
}

/// How a request's body is delimited (RFC 9112 §6.3). A request without
/// `Content-Length` and `Transfer-Encoding` has none, whatever its method.
pub(crate) fn request_framing(head: &RequestHead) -> Framing {
    head.survey().framing(Framing::None)
}

/// How a response's body is delimited, given what was asked (RFC 9112 §6.3).
pub(crate) fn response_framing(head: &ResponseHead, asked: Asked) -> Result<Framing, Bad> {
    match head.status() {
        101 if !(asked.upgrade && head.is_websocket_upgrade()) => Err(Bad::UpgradeUnasked),
        100..=199 | 204 | 304 => Ok(Framing::None),
        _ if asked.head => Ok(Framing::None),
        _ => Ok(head.survey().framing(Framing::UntilClose)),
    }
}

/// What the framing and connection fields of a head say, taken together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Survey {
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// `Connection` names fields that have to be removed.
    nominates: bool,
}

impl Survey {
    pub(super) fn of(fields: &Fields, version: Version) -> Result<Self, Bad> {
        let mut survey = Self::default();
        for field in fields.iter() {
            match field.class {
                Name::ContentLength if survey.content_length.is_some() => {
                    return Err(Bad::LengthRepeated);
                }
                Name::ContentLength => survey.content_length = Some(parse_length(field.value)?),
                // A second field would make it a list: "chunked, chunked" or worse.
                Name::TransferEncoding if survey.chunked => return Err(Bad::EncodingUnknown),
                Name::TransferEncoding if version == Version::Http10 => {
                    return Err(Bad::EncodingInHttp10);
                }
                Name::TransferEncoding if field.value.eq_ignore_ascii_case(b"chunked") => {
                    survey.chunked = true
                }
                Name::TransferEncoding => return Err(Bad::EncodingUnknown),
                Name::FramingLookalike => return Err(Bad::FramingLookalike),
                Name::Connection => survey.read_connection(field.value)?,
                _ => {}
            }
        }
        if survey.chunked && survey.content_length.is_some() {
            return Err(Bad::LengthAndEncoding);
        }
        Ok(survey)
    }

    fn read_connection(&mut self, value: &[u8]) -> Result<(), Bad> {
        for option in members(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                let class = Name::of(option);
                if !class.connection_may_name() {
                    return Err(Bad::Nomination);
                }
                self.upgrade |= class == Name::Upgrade;
                self.nominates |= !class.is_hop_by_hop();
            }
        }
        Ok(())
    }

    /// A status that never has content must not announce any: the server and
    /// we could disagree on where the next response begins. `Content-Length: 0`
    /// is forbidden too (RFC 9110 §8.6) but common and harmless.
    pub(super) fn judge_status(&self, status: u16) -> Result<(), Bad> {
        let never_has_content = matches!(status, 100..=199 | 204);
        match self.content_length {
            _ if !never_has_content => Ok(()),
            _ if self.chunked => Err(Bad::EncodingForbidden),
            Some(1..) => Err(Bad::LengthForbidden),
            Some(0) | None => Ok(()),
        }
    }

    pub(super) fn framing(&self, otherwise: Framing) -> Framing {
        match self.content_length {
            _ if self.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => otherwise,
        }
    }

    /// RFC 9112 §9.3.
    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        match version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 => !self.close,
        }
    }

    pub(super) const fn closes(&self) -> bool {
        self.close
    }

    pub(super) const fn upgrades(&self) -> bool {
        self.upgrade
    }

    pub(super) const fn nominates(&self) -> bool {
        self.nominates
    }

    pub(super) const fn has_length(&self) -> bool {
        self.content_length.is_some()
    }

    pub(super) const fn is_chunked(&self) -> bool {
        self.chunked
    }
}

/// `1*DIGIT` that fits 64 bits: no sign, no list, no white space inside (RFC 9110 §8.6).
fn parse_length(value: &[u8]) -> Result<u64, Bad> {
    if value.is_empty() {
        return Err(Bad::LengthInvalid);
    }
    value
        .iter()
        .try_fold(0_u64, |sum, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            sum.checked_mul(10)?.checked_add(digit)
        })
        .ok_or(Bad::LengthInvalid)
}
