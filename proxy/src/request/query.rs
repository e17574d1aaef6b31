//! Parameters of a query, as `application/x-www-form-urlencoded` has them.
//!
//! Asked by `route`. Nothing is changed: a query is forwarded as it came.

use super::path::hex;

/// The raw value of the first parameter of that name: several are left to
/// each data plane, the first is recommended (HTTPQueryParamMatch.name).
pub(crate) fn first<'a>(query: &'a [u8], name: &str) -> Option<&'a [u8]> {
    query
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let own = parts.next().unwrap_or_default();
            (own, parts.next().unwrap_or_default())
        })
        .find(|(own, _)| decoded(own).eq(name.bytes()))
        .map(|(_, value)| value)
}

/// Whether `decoded` yields anything else than its bytes.
pub(crate) fn is_encoded(raw: &[u8]) -> bool {
    raw.iter().any(|byte| matches!(byte, b'%' | b'+'))
}

/// "+" is a space; what is no escape stays.
pub(crate) fn decoded(raw: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        if let [b'%', high, low, after @ ..] = rest
            && let Some(value) = hex(*high, *low)
        {
            rest = after;
            return Some(value);
        }
        rest = after;
        Some(if *first == b'+' { b' ' } else { *first })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_parameter_of_a_name_is_found_and_decoded() {
        let query = b"a=1&&b&c=x+y%2Bz&a=2&d%20e=%zz&=f";
        let value = |name| first(query, name).map(|raw| decoded(raw).collect::<Vec<_>>());
        for (name, expected) in [
            ("a", Some("1")),
            ("b", Some("")),
            ("c", Some("x y+z")),
            ("d e", Some("%zz")),
            ("", Some("f")),
            ("A", None),
            ("d%20e", None),
        ] {
            assert_eq!(
                value(name).as_deref(),
                expected.map(str::as_bytes),
                "{name}"
            );
        }
        assert_eq!(first(b"", "a"), None);
    }
}
