//! What many fields have in common: names, ports, addresses, times, paths.
//!
//! Called by every kind's `convert`. Names end up in SPIFFE IDs, in DNS and in
//! labels of metrics, so nothing passes that could mean something else there.
//!
//! Pure.

use std::net::IpAddr;

use gateway_api::Duration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;

use super::Refusal;
use crate::model::{Labels, Name};

/// The name that a document gives itself, however wrong the rest is.
pub(super) fn named(value: &Value) -> Option<Name> {
    let metadata = value.get("metadata")?;
    let namespace = metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or(DEFAULT_NAMESPACE);
    let name = metadata.get("name")?.as_str()?;
    Some(Name::new(namespace, name))
}

/// As everywhere without `-n`.
const DEFAULT_NAMESPACE: &str = "default";

/// Namespace and name of an object that has both.
pub(super) fn name(metadata: &ObjectMeta) -> Result<Name, Refusal> {
    let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    label("metadata.namespace", namespace)?;
    let name = metadata.name.as_deref().unwrap_or_default();
    subdomain("metadata.name", name)?;
    Ok(Name::new(namespace, name))
}

pub(super) fn labels(metadata: &ObjectMeta) -> Labels {
    metadata.labels.clone().unwrap_or_default()
}

/// Milliseconds since the epoch; 0 where the object doesn't say.
pub(super) fn created(metadata: &ObjectMeta) -> i64 {
    let created = metadata.creation_timestamp.as_ref();
    created.map_or(0, |Time(at)| at.as_millisecond())
}

/// 0 where the object doesn't say.
pub(super) fn generation(metadata: &ObjectMeta) -> i64 {
    metadata.generation.unwrap_or_default()
}

/// Empty where the object doesn't say.
pub(super) fn uid(metadata: &ObjectMeta) -> String {
    metadata.uid.clone().unwrap_or_default()
}

/// RFC 1123 label.
pub(super) fn label(field: &str, text: &str) -> Result<(), Refusal> {
    let fits = text.len() <= 63
        && text
            .bytes()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.is_empty();
    let expected = "lower-case letters, digits and dashes between them, at most 63";
    fits.then_some(())
        .ok_or_else(|| Refusal::value(field, quoted(text), expected))
}

/// RFC 1123 subdomain.
pub(super) fn subdomain(field: &str, text: &str) -> Result<(), Refusal> {
    let fits = text.len() <= 253 && text.split('.').all(|part| label(field, part).is_ok());
    let expected = "lower-case letters, digits, dashes and dots between them, at most 253";
    fits.then_some(())
        .ok_or_else(|| Refusal::value(field, quoted(text), expected))
}

pub(super) fn quoted(text: &str) -> String {
    if text.is_empty() {
        "missing".to_owned()
    } else {
        format!("{text:?}")
    }
}

pub(super) fn port(field: &str, number: i64) -> Result<u16, Refusal> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Refusal::value(field, number, "1 to 65535")),
    }
}

/// `number` within `least` and `most`.
pub(super) fn within(field: &str, number: i64, least: u32, most: u32) -> Result<u32, Refusal> {
    u32::try_from(number)
        .ok()
        .filter(|it| (least..=most).contains(it))
        .ok_or_else(|| Refusal::value(field, number, &format!("{least} to {most}")))
}

/// An address that one host can have.
pub(super) fn address(field: &str, text: &str) -> Result<IpAddr, Refusal> {
    let expected = "the address of one host, like 10.0.0.1 or fd00::1";
    let refused = || Refusal::value(field, quoted(text), expected);
    let address = text
        .parse::<IpAddr>()
        .map_err(|_| refused())?
        .to_canonical();
    let is_broadcast = matches!(address, IpAddr::V4(ip) if ip.is_broadcast());
    match address.is_unspecified() || address.is_multicast() || is_broadcast {
        true => Err(refused()),
        false => Ok(address),
    }
}

/// Base address and prefix length.
pub(super) fn range(field: &str, text: &str) -> Result<(IpAddr, u8), Refusal> {
    let parse = || {
        let (base, length) = text.split_once('/')?;
        let (base, length): (IpAddr, u8) = (base.parse().ok()?, length.parse().ok()?);
        let most = if base.is_ipv4() { 32 } else { 128 };
        (length <= most).then_some((base, length))
    };
    let expected = "a range, like 10.0.0.0/16 or fd00::/64";
    parse().ok_or_else(|| Refusal::value(field, quoted(text), expected))
}

/// Milliseconds of a Gateway API duration (GEP-2257), at most `most` hours.
pub(super) fn duration(field: &str, text: &str, most_hours: u64) -> Result<u64, Refusal> {
    let most = most_hours * 3_600_000;
    let expected = format!("a duration up to {most_hours}h, like 1s500ms, 250ms or 2m");
    let milliseconds = text.parse::<Duration>().ok().map(|it| it.as_millis());
    milliseconds
        .and_then(|it| u64::try_from(it).ok())
        .filter(|it| *it <= most)
        .ok_or_else(|| Refusal::value(field, quoted(text), &expected))
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let is_tchar = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// A path as proxies compare it: what canonicalising would change never
/// matches, so it is refused where it is written.
pub(super) fn path(field: &str, text: &str) -> Result<(), Refusal> {
    let refuse =
        |why: &str, remedy: &str| Err(Refusal::new(field, format!("is {text:?}, {why}"), remedy));
    if !text.starts_with('/') {
        return refuse("which is no absolute path", "begin it with /");
    }
    if text.len() > 1024 {
        return refuse("which is too long", "use at most 1024 bytes");
    }
    if text.contains("//") {
        return refuse("which has an empty segment", "write single slashes");
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return refuse("which has dot segments", "write the path that they lead to");
    }
    let is_pchar = |it: u8| it.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&it);
    if !text.bytes().all(is_pchar) {
        return refuse(
            "which has bytes that no path has (RFC 3986 §3.3)",
            "percent-encode them, as %20; leave ? and # out",
        );
    }
    let mut parts = text.split('%');
    parts.next();
    for part in parts {
        let digits = part.get(..2).unwrap_or_default();
        let byte = u8::from_str_radix(digits, 16).ok();
        let byte =
            byte.filter(|_| digits.len() == 2 && digits.bytes().all(|it| it.is_ascii_hexdigit()));
        let upper = !digits.bytes().any(|it| it.is_ascii_lowercase());
        match byte {
            Some(0 | b'/' | b'\\') => {
                return refuse(
                    "which hides a slash or a NUL",
                    "proxies refuse such requests; leave it out",
                );
            }
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                return refuse(
                    "which encodes what needs no encoding",
                    "write the character itself",
                );
            }
            Some(_) if upper => {}
            _ => {
                return refuse(
                    "which is not encoded canonically",
                    "use two upper-case hexadecimal digits",
                );
            }
        }
    }
    Ok(())
}
