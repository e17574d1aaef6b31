//! Which header fields belong to one hop, and which may never be touched.
//!
//! Used by the HTTP/1 codec and by the HTTP/2 leg, so that both strip the
//! same names. A field name is classified once, when its head is parsed; the
//! rules here are questions about that class.
//!
//! It never looks at values and never decides what a request may do.

/// What the mesh has to know about a field name; everything else is `Other`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    Connection,
    ContentLength,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    /// `Content_Length`, `Transfer_Encoding`.
    FramingLookalike,
    /// `weft-*`: what two sidecars tell one another.
    Mesh,
    /// Says who calls, what the content is, or who may keep it: upstreams and
    /// policies rely on it, so it is never removed because `Connection` names
    /// it, and never accepted in a trailer section (RFC 9110 §6.5.1).
    Guarded,
    Other,
}

const MESH_PREFIX: &[u8] = b"weft-";

impl Name {
    /// Classifies a name, whatever its case.
    pub(crate) fn of(name: &[u8]) -> Self {
        let candidates = Self::of_length(name.len());
        let known = candidates
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
        match known {
            Some((_, class)) => *class,
            None if is_mesh(name) => Self::Mesh,
            None if FRAMING.iter().any(|framing| is_lookalike(name, framing)) => {
                Self::FramingLookalike
            }
            None => Self::Other,
        }
    }

    /// The names of a length: few, so that a field costs at most three comparisons.
    const fn of_length(length: usize) -> &'static [(&'static str, Self)] {
        match length {
            2 => &[("te", Self::Te)],
            4 => &[("host", Self::Host)],
            6 => &[("expect", Self::Expect), ("cookie", Self::Guarded)],
            7 => &[("upgrade", Self::Upgrade), ("trailer", Self::Trailer)],
            9 => &[("forwarded", Self::Guarded), ("x-real-ip", Self::Guarded)],
            10 => &[
                ("connection", Self::Connection),
                ("keep-alive", Self::KeepAlive),
                ("set-cookie", Self::Guarded),
            ],
            12 => &[("content-type", Self::Guarded)],
            13 => &[
                ("authorization", Self::Guarded),
                ("cache-control", Self::Guarded),
                ("content-range", Self::Guarded),
            ],
            14 => &[
                ("content-length", Self::ContentLength),
                ("http2-settings", Self::Http2Settings),
            ],
            15 => &[("x-forwarded-for", Self::Guarded)],
            16 => &[
                ("proxy-connection", Self::ProxyConnection),
                ("content-encoding", Self::Guarded),
                ("x-forwarded-host", Self::Guarded),
            ],
            17 => &[
                ("transfer-encoding", Self::TransferEncoding),
                ("x-forwarded-proto", Self::Guarded),
            ],
            19 => &[("proxy-authorization", Self::Guarded)],
            _ => &[],
        }
    }

    /// Meant for the next hop alone (RFC 9110 §7.6.1), or, as `HTTP2-Settings`,
    /// part of an upgrade that the mesh refuses.
    pub(crate) const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Http2Settings
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }

    /// May `Connection` name it, and so have it removed?
    ///
    /// "A sender MUST NOT send a connection option corresponding to a field
    /// that is intended for all recipients" (RFC 9110 §7.6.1). Whoever does
    /// wants a hop to drop what another hop judged by: refused, not obeyed.
    pub(crate) const fn connection_may_name(self) -> bool {
        !matches!(
            self,
            Self::ContentLength | Self::Expect | Self::Guarded | Self::Host | Self::Mesh
        )
    }

    /// May a trailer section carry it (RFC 9110 §6.5.1)? `weft-*` may come
    /// between sidecars; the encoder strips it at the edges.
    pub(crate) const fn trailer_may_carry(self) -> bool {
        matches!(self, Self::Other | Self::Mesh)
    }
}

fn is_mesh(name: &[u8]) -> bool {
    name.split_at_checked(MESH_PREFIX.len())
        .is_some_and(|(start, _)| start.eq_ignore_ascii_case(MESH_PREFIX))
}

const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];

/// Servers that hand fields over as CGI variables (RFC 3875 §4.1.18) read `_`
/// as `-`, so to them it is the field itself.
fn is_lookalike(name: &[u8], field: &str) -> bool {
    let same = |(one, other): (&u8, u8)| {
        one.eq_ignore_ascii_case(&other) || (*one == b'_' && other == b'-')
    };
    name.len() == field.len() && name.iter().zip(field.bytes()).all(same)
}

/// The members of a comma-separated list, without white space and empty members
/// (RFC 9110 §5.6.1.2).
pub(crate) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_classified_whatever_their_case() {
        for (name, class) in [
            ("Connection", Name::Connection),
            ("CONTENT-LENGTH", Name::ContentLength),
            ("hTTp2-sEttings", Name::Http2Settings),
            ("Keep-Alive", Name::KeepAlive),
            ("transfer-Encoding", Name::TransferEncoding),
            ("tE", Name::Te),
            ("Weft-Fault", Name::Mesh),
            ("weft-", Name::Mesh),
            ("weft", Name::Other),
            ("hostt", Name::Other),
            ("Content_Length", Name::FramingLookalike),
            ("TRANSFER_ENCODING", Name::FramingLookalike),
            ("Cookie", Name::Guarded),
            ("X-Forwarded-Proto", Name::Guarded),
            ("proxy-authorization", Name::Guarded),
            ("accept", Name::Other),
            ("", Name::Other),
        ] {
            assert_eq!(Name::of(name.as_bytes()), class, "{name}");
        }
    }

    #[test]
    fn every_known_name_stands_under_its_length() {
        for length in 0..64 {
            for (name, class) in Name::of_length(length) {
                assert_eq!(name.len(), length, "{name}");
                assert_eq!(Name::of(name.to_uppercase().as_bytes()), *class);
            }
        }
    }

    #[test]
    fn what_frames_or_routes_a_message_is_neither_nominated_nor_a_trailer() {
        for name in ["Host", "Content-Length", "Authorization", "Cookie"] {
            let class = Name::of(name.as_bytes());
            assert!(!class.connection_may_name(), "{name}");
            assert!(!class.trailer_may_carry(), "{name}");
        }
        assert!(Name::of(b"x-own").connection_may_name());
        assert!(Name::of(b"grpc-status").trailer_may_carry());
    }

    #[test]
    fn lists_skip_white_space_and_empty_members() {
        let found: Vec<_> = members(b" , close ,\tte,,x ").collect();
        assert_eq!(found, [&b"close"[..], b"te", b"x"]);
    }
}
