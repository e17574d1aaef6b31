//! What is wrong with an HTTP/1 message: the closed list, each with its clause.
//!
//! Made by the parser and the body decoder; `http::server` and `upstream` turn
//! it into a fault. The text goes into a debug line, never to a peer.

use crate::outcome::Reason;

macro_rules! flaws {
    ($($variant:ident $request:ident $response:ident $detail:literal)*) => {
        /// Why a message is refused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub(crate) enum Bad {
            $(#[doc = $detail] $variant,)*
        }

        impl Bad {
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The flaw and the clause that it breaks.
            pub(crate) const fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)* }
            }

            /// Its fault when the message is a request.
            pub(crate) const fn in_request(self) -> Reason {
                match self { $(Self::$variant => Reason::$request,)* }
            }

            /// Its fault when the message is a response.
            pub(crate) const fn in_response(self) -> Reason {
                match self { $(Self::$variant => Reason::$response,)* }
            }
        }
    };
}

flaws! {
    BareLf MalformedRequest MalformedResponse "line feed without carriage return (RFC 9112 §2.2)"
    BareCr MalformedRequest MalformedResponse "carriage return without line feed (RFC 9112 §2.2)"
    Nul MalformedRequest MalformedResponse "NUL in the head (RFC 9110 §5.5)"
    ControlByte MalformedRequest MalformedResponse "control byte in a field value (RFC 9110 §5.5)"
    BlankLine MalformedRequest MalformedResponse "empty line where a start line is due (RFC 9112 §2.2)"
    ObsFold MalformedRequest MalformedResponse "line folding (RFC 9112 §5.2)"
    LeadingSpace MalformedRequest MalformedResponse "white space before the start line or first field (RFC 9112 §2.2)"
    SpaceBeforeColon MalformedRequest MalformedResponse "white space between field name and colon (RFC 9112 §5.1)"
    MissingColon MalformedRequest MalformedResponse "field line without colon (RFC 9112 §5)"
    FieldName MalformedRequest MalformedResponse "field name is not a token (RFC 9110 §5.1)"
    RequestLine MalformedRequest MalformedResponse "request line is not method, target, version (RFC 9112 §3)"
    Method MalformedRequest MalformedResponse "method is not a token of at most 64 bytes (RFC 9112 §3.1)"
    Version MalformedRequest MalformedResponse "version is neither HTTP/1.0 nor HTTP/1.1 (RFC 9112 §2.3)"
    Connect ConnectMethod MalformedResponse "CONNECT (RFC 9110 §9.3.6)"
    TargetTooLong TargetTooLong MalformedResponse "request target over its limit (RFC 9110 §15.5.15)"
    TargetByte MalformedRequest MalformedResponse "control, non-ASCII or fragment byte in the target (RFC 9112 §3.2)"
    TargetForm MalformedRequest MalformedResponse "target has no form that the method allows (RFC 9112 §3.2)"
    TargetAuthority MalformedRequest MalformedResponse "invalid authority in the target (RFC 9110 §4.2)"
    HostMissing MalformedRequest MalformedResponse "no Host in HTTP/1.1 (RFC 9112 §3.2)"
    HostRepeated MalformedRequest MalformedResponse "more than one Host (RFC 9112 §3.2)"
    HostInvalid MalformedRequest MalformedResponse "Host is not a host with an optional port (RFC 9110 §7.2)"
    HostMismatch MalformedRequest MalformedResponse "Host differs from the target's authority (RFC 9112 §3.2.2)"
    StatusLine MalformedRequest MalformedResponse "status line is not version, status, reason (RFC 9112 §4)"
    UpgradeUnasked MalformedRequest MalformedResponse "101 without an upgrade that was asked for (RFC 9110 §15.2.2)"
    HeadTooLarge HeadersTooLarge ResponseHeadersTooLarge "head over its limit of bytes (RFC 6585 §5)"
    TooManyFields HeadersTooLarge ResponseHeadersTooLarge "head over its limit of fields (RFC 6585 §5)"
    LengthInvalid MalformedRequest MalformedResponse "Content-Length is not one decimal number (RFC 9110 §8.6)"
    LengthRepeated MalformedRequest MalformedResponse "more than one Content-Length (RFC 9112 §6.3)"
    LengthAndEncoding MalformedRequest MalformedResponse "both Content-Length and Transfer-Encoding (RFC 9112 §6.1)"
    LengthForbidden MalformedRequest MalformedResponse "content announced with a status that has none (RFC 9110 §8.6)"
    EncodingUnknown MalformedRequest MalformedResponse "Transfer-Encoding is not exactly chunked (RFC 9112 §6.1)"
    EncodingInHttp10 MalformedRequest MalformedResponse "Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1)"
    EncodingForbidden MalformedRequest MalformedResponse "Transfer-Encoding with a status that has no content (RFC 9112 §6.1)"
    FramingLookalike MalformedRequest MalformedResponse "framing field spelt with an underscore (RFC 3875 §4.1.18)"
    Nomination MalformedRequest MalformedResponse "Connection names an end-to-end field (RFC 9110 §7.6.1)"
    ChunkSize MalformedRequest MalformedResponse "chunk size is not a hexadecimal number (RFC 9112 §7.1)"
    ChunkSizeOverflow MalformedRequest MalformedResponse "chunk size over 64 bits (RFC 9112 §7.1)"
    ChunkExtension MalformedRequest MalformedResponse "malformed chunk extension (RFC 9112 §7.1.1)"
    ChunkExtensionsTooLarge MalformedRequest MalformedResponse "chunk extensions over their limit (RFC 9112 §7.1.1)"
    ChunkEnd MalformedRequest MalformedResponse "chunk data not followed by CRLF (RFC 9112 §7.1)"
    TrailersTooLarge HeadersTooLarge ResponseHeadersTooLarge "trailer section over its limit (RFC 9112 §7.1.2)"
    TrailerForbidden MalformedRequest MalformedResponse "field that a trailer section must not carry (RFC 9110 §6.5.1)"
    Truncated MalformedRequest ResponseTruncated "connection ended inside the message (RFC 9112 §8)"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flaw_names_its_clause_and_a_fault_of_its_side() {
        for bad in Bad::ALL {
            assert!(bad.detail().contains("RFC "), "{bad:?}");
            assert!(
                (400..=501).contains(&bad.in_request().http_status()),
                "{bad:?}"
            );
            assert_eq!(bad.in_response().http_status(), 502, "{bad:?}");
        }
    }
}
