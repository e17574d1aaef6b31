//! Reads the trace's id out of W3C `traceparent`, for log lines.
//!
//! Called by `record` when a request's head has arrived. Never changes the
//! header: it is passed on as it came. Bytes come from the network, so they
//! are parsed and never indexed.

use std::fmt;

/// 16 bytes in hexadecimal, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TraceId([u8; 32]);

impl TraceId {
    /// Trace Context §3.2.2: `version "-" trace-id "-" parent-id "-" flags`, in
    /// lower-case hexadecimal. Version `ff` is forbidden, version `00` ends
    /// after the flags; a later version may go on after another dash.
    pub(crate) fn from_traceparent(value: &[u8]) -> Option<Self> {
        let (version, rest) = field::<2>(value)?;
        let (trace, rest) = field::<32>(dash(rest)?)?;
        let (parent, rest) = field::<16>(dash(rest)?)?;
        let (_flags, rest) = field::<2>(dash(rest)?)?;
        let ends_right = match version {
            [b'f', b'f'] => false,
            [b'0', b'0'] => rest.is_empty(),
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let is_set = |id: &[u8]| id.iter().any(|digit| *digit != b'0');
        (ends_right && is_set(&trace) && is_set(&parent)).then_some(Self(trace))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first `N` bytes where all are lower-case hexadecimal digits, and the rest.
fn field<const N: usize>(value: &[u8]) -> Option<([u8; N], &[u8])> {
    let (digits, rest) = value.split_first_chunk::<N>()?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits.iter().all(is_digit).then_some((*digits, rest))
}

fn dash(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_trace_is_read_from_a_valid_header() {
        for valid in [
            format!("00-{TRACE}-00f067aa0ba902b7-01"),
            format!("cc-{TRACE}-00f067aa0ba902b7-01"),
            format!("cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-holds"),
        ] {
            assert_eq!(
                TraceId::from_traceparent(valid.as_bytes()).map(|id| id.to_string()),
                Some(TRACE.into()),
                "{valid}"
            );
        }
    }

    #[test]
    fn an_invalid_header_names_no_trace() {
        for invalid in [
            String::new(),
            "0".repeat(55),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("cc-{TRACE}-00f067aa0ba902b7-01.more"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-0"),
        ] {
            assert_eq!(
                TraceId::from_traceparent(invalid.as_bytes()),
                None,
                "{invalid}"
            );
        }
    }
}
