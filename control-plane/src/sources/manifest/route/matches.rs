//! Texts that a request is compared with: expressions, header values.
//!
//! Called by `http_route` and `grpc_route`. Expressions are checked here as
//! proxies compile them (RE2 syntax, linear time, bounded size), so that none
//! is stored that a proxy refuses.
//!
//! Pure.

use regex::bytes::RegexBuilder;

use crate::{
    model::TextMatch,
    sources::manifest::{Refusal, check},
};

/// Bytes of a compiled expression; what a proxy spends on each.
const LARGEST: usize = 256 * 1024;
const LONGEST: usize = 1024;
const DEEPEST: u32 = 64;

/// An expression for a whole text.
pub(in crate::sources::manifest) fn expression(field: &str, text: &str) -> Result<(), Refusal> {
    let refused = |why: String| {
        let remedy = "write an expression in RE2 syntax, without look-around and back-references";
        Err(Refusal::new(field, format!("is {text:?}, {why}"), remedy))
    };
    if text.is_empty() || text.len() > LONGEST {
        return refused(format!("which is not 1 to {LONGEST} bytes long"));
    }
    // By itself too: `a)(b` would be whole inside of the group.
    for pattern in [text.to_owned(), format!(r"\A(?:{text})\z")] {
        let built = RegexBuilder::new(&pattern)
            .size_limit(LARGEST)
            .nest_limit(DEEPEST)
            .build();
        match built {
            Ok(_) => {}
            Err(regex::Error::CompiledTooBig(_)) => {
                return refused("which takes too much memory".to_owned());
            }
            Err(error) => {
                let error = error.to_string();
                let last = error.lines().next_back().unwrap_or_default();
                return refused(format!("which is no expression ({last})"));
            }
        }
    }
    Ok(())
}

/// A header as it is compared.
pub(in crate::sources::manifest) struct Header<'a> {
    pub(in crate::sources::manifest) name: &'a str,
    pub(in crate::sources::manifest) value: &'a str,
    pub(in crate::sources::manifest) expression: bool,
}

/// All of them.
pub(in crate::sources::manifest) fn headers<'a>(
    all: impl Iterator<Item = Header<'a>>,
) -> Result<Vec<(String, TextMatch)>, Refusal> {
    let mut headers: Vec<(&str, String, TextMatch)> = Vec::new();
    for (index, it) in all.enumerate() {
        let at = |part: &str| format!("headers[{index}].{part}");
        let name = it.name.to_ascii_lowercase();
        if !check::is_token(&name) {
            let is = check::quoted(it.name);
            return Err(Refusal::value(&at("name"), is, "a header's name"));
        }
        if headers.iter().any(|(said, ..)| *said == it.name) {
            let message = format!("is {name} a second time, which the API ignores");
            return Err(Refusal::new(&at("name"), message, "match each header once"));
        }
        let value = match it.expression {
            true => {
                expression(&at("value"), it.value)?;
                TextMatch::Expression(it.value.to_owned())
            }
            false => {
                header_value(&at("value"), it.value)?;
                TextMatch::Exact(it.value.to_owned())
            }
        };
        // "Subsequent entries with an equivalent header name MUST be ignored"
        // (HTTPHeaderMatch.name); the same name again no API server stores.
        if headers.iter().all(|(_, known, _)| *known != name) {
            headers.push((it.name, name, value));
        }
    }
    let without_spelling = headers.into_iter().map(|(_, name, value)| (name, value));
    Ok(without_spelling.collect())
}

/// RFC 9110 §5.5, without what a parser strips.
pub(in crate::sources::manifest) fn header_value(field: &str, value: &str) -> Result<(), Refusal> {
    let is_text = |it: u8| it == b'\t' || (0x20..0x7f).contains(&it) || it >= 0x80;
    match value.is_empty() || !value.bytes().all(is_text) || value.trim() != value {
        true => {
            let is = check::quoted(value);
            Err(Refusal::value(field, is, "a header's value"))
        }
        false => Ok(()),
    }
}
