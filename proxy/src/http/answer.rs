//! What the mesh says instead of the application, and what two proxies tell
//! each other in `weft-*` fields.
//!
//! Used by both protocols. Those fields are stripped at both application edges
//! and believed only over mesh TLS.

use http::HeaderMap;

use crate::outcome::{Fault, Reason, Side};

/// The fault of the proxy that answers: "inbound/access-denied".
pub(crate) const FAULT: &str = "weft-fault";
/// Which try this is, from the second on.
pub(crate) const ATTEMPT: &str = "weft-attempt";
/// What such fields begin with.
pub(crate) const OURS: &str = "weft-";

/// Value of `weft-fault`.
pub(crate) fn told(fault: Fault) -> String {
    format!("{}/{}", fault.side.as_str(), fault.reason.as_str())
}

/// Reads `weft-fault`; `None` is a fault that this version doesn't know.
pub(crate) fn heard(value: &[u8]) -> Option<Fault> {
    let (side, reason) = std::str::from_utf8(value).ok()?.split_once('/')?;
    let side = [Side::Outbound, Side::Inbound]
        .into_iter()
        .find(|known| known.as_str() == side)?;
    Some(Reason::from_text(reason)?.at(side))
}

/// Reads `weft-attempt`; 1 where there is none.
pub(crate) fn attempt(value: Option<&[u8]>) -> u32 {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

/// Body of an answer: what an engineer sees in curl.
pub(crate) fn text(fault: Fault, detail: &str) -> String {
    let mut text = fault.body();
    if !detail.is_empty() {
        text.truncate(text.trim_end().len());
        text.push_str(" (");
        text.push_str(detail);
        text.push_str(")\n");
    }
    text
}

/// Removes `weft-*`.
pub(crate) fn strip(fields: &mut HeaderMap) {
    while let Some(name) = fields
        .keys()
        .find(|name| name.as_str().starts_with(OURS))
        .cloned()
    {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_was_told_is_heard() {
        for side in [Side::Outbound, Side::Inbound] {
            for reason in Reason::ALL {
                assert_eq!(
                    heard(told(reason.at(side)).as_bytes()),
                    Some(reason.at(side))
                );
            }
        }
        for wrong in [
            "",
            "inbound",
            "inbound/",
            "inbound/new-reason",
            "sideways/no-route",
        ] {
            assert_eq!(heard(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn attempts_that_make_no_sense_are_first_ones() {
        assert_eq!(attempt(Some(b"3")), 3);
        for wrong in [
            None,
            Some(&b"0"[..]),
            Some(b"x"),
            Some(b"-1"),
            Some(b"99999999999"),
        ] {
            assert_eq!(attempt(wrong), 1);
        }
    }

    #[test]
    fn our_fields_are_stripped_and_no_others() {
        let mut fields = HeaderMap::new();
        for name in [
            "weft-fault",
            "weft-attempt",
            "weft-x",
            "x-weft-y",
            "weftless",
        ] {
            fields.append(name, "1".parse().unwrap());
            fields.append(name, "2".parse().unwrap());
        }
        strip(&mut fields);
        let mut left: Vec<_> = fields.keys().map(|name| name.as_str().to_owned()).collect();
        left.sort_unstable();
        assert_eq!(left, ["weftless", "x-weft-y"]);
    }
}
