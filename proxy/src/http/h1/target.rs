//! The request target's forms, and `Host` (RFC 9112 §3.2).
//!
//! Called by `head` while a request is parsed. A target is judged and passed
//! on as it came: what its path means is the canonicaliser's business, where
//! the connection goes was decided by its original destination.

use std::net::Ipv6Addr;

use super::{Bad, Fields, Version};
use crate::http::headers::Name;

/// Which form a target has. CONNECT's authority form does not get this far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Origin,
    Asterisk,
    Absolute(Scheme),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    const ALL: [Self; 2] = [Self::Http, Self::Https];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }

    const fn default_port(self) -> &'static [u8] {
        match self {
            Self::Http => b"80",
            Self::Https => b"443",
        }
    }
}

impl Target {
    /// The target without scheme and authority.
    fn rest(self, target: &[u8]) -> &[u8] {
        match self {
            Self::Origin | Self::Asterisk => target,
            Self::Absolute(scheme) => {
                split_absolute(scheme, target).map_or(&[][..], |(_, rest)| rest)
            }
        }
    }

    pub(super) fn path(self, target: &[u8]) -> &[u8] {
        let rest = self.rest(target);
        let path = rest.split(|byte| *byte == b'?').next().unwrap_or_default();
        if path.is_empty() { b"/" } else { path }
    }

    pub(super) fn query(self, target: &[u8]) -> Option<&[u8]> {
        self.rest(target).splitn(2, |byte| *byte == b'?').nth(1)
    }

    pub(super) fn authority(self, target: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Origin | Self::Asterisk => None,
            Self::Absolute(scheme) => {
                split_absolute(scheme, target).map(|(authority, _)| authority)
            }
        }
    }
}

/// Authority and the rest of an absolute form.
fn split_absolute(scheme: Scheme, target: &[u8]) -> Option<(&[u8], &[u8])> {
    let (prefix, rest) = target.split_at_checked(scheme.prefix().len())?;
    if !prefix.eq_ignore_ascii_case(scheme.prefix().as_bytes()) {
        return None;
    }
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    rest.split_at_checked(end)
}

/// Finds the form, and refuses what no form allows.
pub(super) fn judge(method: &str, target: &[u8]) -> Result<Target, Bad> {
    // httparse lets non-ASCII through; a fragment is never sent (RFC 9112 §3.2.1).
    if !target
        .iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b'#')
    {
        return Err(Bad::TargetByte);
    }
    match target {
        [b'/', ..] => return Ok(Target::Origin),
        b"*" if method == "OPTIONS" => return Ok(Target::Asterisk),
        _ => {}
    }
    for scheme in Scheme::ALL {
        if let Some((authority, _)) = split_absolute(scheme, target) {
            // User information is refused with the rest (RFC 9110 §4.2.4).
            return match split_authority(authority) {
                Some(_) => Ok(Target::Absolute(scheme)),
                None => Err(Bad::TargetAuthority),
            };
        }
    }
    Err(Bad::TargetForm)
}

/// Exactly one valid `Host` in HTTP/1.1, at most one in HTTP/1.0, and none
/// that contradicts the target: a proxy would have to ignore it and an old
/// server would not (RFC 9112 §3.2.2).
pub(super) fn judge_host(
    form: Target,
    target: &[u8],
    fields: &Fields,
    version: Version,
) -> Result<(), Bad> {
    let mut hosts = fields.iter().filter(|field| field.class == Name::Host);
    let Some(host) = hosts.next().map(|field| field.value) else {
        return if version == Version::Http10 {
            Ok(())
        } else {
            Err(Bad::HostMissing)
        };
    };
    if hosts.next().is_some() {
        return Err(Bad::HostRepeated);
    }
    // An empty Host is what RFC 9112 §3.2 asks for where the target names nobody.
    let split = split_authority(host);
    if split.is_none() && !host.is_empty() {
        return Err(Bad::HostInvalid);
    }
    let (Target::Absolute(scheme), Some(authority)) = (form, form.authority(target)) else {
        return Ok(());
    };
    let agrees =
        split
            .zip(split_authority(authority))
            .is_some_and(|((host, port), (asked, asked_port))| {
                let default = scheme.default_port();
                host.eq_ignore_ascii_case(asked)
                    && port.unwrap_or(default) == asked_port.unwrap_or(default)
            });
    if agrees {
        Ok(())
    } else {
        Err(Bad::HostMismatch)
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2, RFC 3986 §3.2), not empty. An empty
/// port counts as none.
fn split_authority(authority: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let host_end = match authority {
        [b'[', ..] => authority
            .iter()
            .position(|byte| *byte == b']')?
            .checked_add(1)?,
        _ => authority
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(host_end)?;
    let port = match rest {
        [] | [b':'] => None,
        [b':', port @ ..] => Some(port),
        _ => return None,
    };
    let port_is_valid = port.is_none_or(|port| {
        port.iter().all(u8::is_ascii_digit)
            && str::from_utf8(port).is_ok_and(|text| text.parse::<u16>().is_ok())
    });
    let host_is_valid = match host {
        [b'[', address @ .., b']'] => {
            str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
        }
        _ => !host.is_empty() && is_registered_name(host),
    };
    (port_is_valid && host_is_valid).then_some((host, port))
}

/// `*( unreserved / pct-encoded / sub-delims )` (RFC 3986 §3.2.2).
fn is_registered_name(host: &[u8]) -> bool {
    let mut bytes = host.iter();
    while let Some(byte) = bytes.next() {
        let is_valid = match byte {
            b'%' => {
                bytes.next().is_some_and(u8::is_ascii_hexdigit)
                    && bytes.next().is_some_and(u8::is_ascii_hexdigit)
            }
            b'-' | b'.' | b'_' | b'~' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
            other => other.is_ascii_alphanumeric(),
        };
        if !is_valid {
            return false;
        }
    }
    true
}

/// `1*tchar` (RFC 9110 §5.6.2).
pub(super) fn is_token(text: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_tchar)
}
