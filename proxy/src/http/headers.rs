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
    /// Says who calls, what the content is, or who may keep it.
    Guarded,
    Other,
}

/// Fields that an upstream or a policy relies on: never removed because
/// `Connection` names them, never accepted in a trailer section
/// (RFC 9110 §6.5.1: authentication, content and response control data).
const GUARDED: &[&str] = &[
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "forwarded",
    "proxy-authorization",
    "set-cookie",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

const MESH_PREFIX: &[u8] = b"weft-";

impl Name {
    /// Classifies a name, whatever its case.
    pub(crate) fn of(name: &[u8]) -> Self {
        let exact =
            |known: &str, class| name.eq_ignore_ascii_case(known.as_bytes()).then_some(class);
        // The length tells nearly all apart, so a field costs at most three comparisons.
        let known = match name.len() {
            2 => exact("te", Self::Te),
            4 => exact("host", Self::Host),
            6 => exact("expect", Self::Expect),
            7 => exact("upgrade", Self::Upgrade).or_else(|| exact("trailer", Self::Trailer)),
            10 => exact("connection", Self::Connection)
                .or_else(|| exact("keep-alive", Self::KeepAlive)),
            14 => exact("content-length", Self::ContentLength)
                .or_else(|| exact("http2-settings", Self::Http2Settings)),
            16 => exact("proxy-connection", Self::ProxyConnection),
            17 => exact("transfer-encoding", Self::TransferEncoding),
            _ => None,
        };
        known.unwrap_or_else(|| Self::by_list(name))
    }

    fn by_list(name: &[u8]) -> Self {
        if name
            .split_at_checked(MESH_PREFIX.len())
            .is_some_and(|(start, _)| start.eq_ignore_ascii_case(MESH_PREFIX))
        {
            return Self::Mesh;
        }
        if FRAMING.iter().any(|framing| is_lookalike(name, framing)) {
            return Self::FramingLookalike;
        }
        let guarded = GUARDED
            .iter()
            .any(|field| name.eq_ignore_ascii_case(field.as_bytes()));
        if guarded { Self::Guarded } else { Self::Other }
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
            ("accept", Name::Other),
            ("", Name::Other),
        ] {
            assert_eq!(Name::of(name.as_bytes()), class, "{name}");
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
