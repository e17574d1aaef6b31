//! Every annotation of a pod that the mesh reads, declared once: name, form,
//! and which knob of the proxy it sets.
//!
//! `inject` reads them, docs/injection.md quotes them. A value is checked here,
//! at admission, because a proxy that refuses its knob at its start would keep
//! the application from starting, with the reason in a log that nobody reads.
//! A name that is none of these is refused: it is a slip of the pen.
//!
//! Pure.

use std::collections::BTreeMap;

use super::{Refusal, refusals::PROXY_PORTS, resources};
use crate::sources::manifest::pod::{EXCLUDE_INBOUND_PORTS, WEIGHT};

/// What the value may be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Form {
    Cpu,
    Memory,
    Ports,
    Ranges,
    /// Of objects.
    Names,
    /// A port of the application and a path on it.
    Page,
    /// From least to most.
    Number(u64, u64),
    Duration,
    DurationOrNone,
    OneOf(&'static [&'static str]),
    LogFilter,
    Text,
}

/// Who acts on it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Use {
    /// This knob of the proxy.
    Knob(&'static str),
    /// The containers that are added.
    Pod,
    /// The control plane, of a running pod.
    ControlPlane,
    /// Written by the webhook.
    Written,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Annotation {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) used: Use,
    pub(crate) help: &'static str,
}

pub(crate) const PREFIX: &str = "weft.dev/";
pub(super) const TRUST_BUNDLE: &str = "weft.dev/trust-bundle";
pub(super) const PROBES: &str = "weft.dev/probes";
pub(super) const CPU_REQUEST: &str = "weft.dev/proxy-cpu-request";
pub(super) const CPU_LIMIT: &str = "weft.dev/proxy-cpu-limit";
pub(super) const MEMORY_REQUEST: &str = "weft.dev/proxy-memory-request";
pub(super) const MEMORY_LIMIT: &str = "weft.dev/proxy-memory-limit";
pub(super) const IMAGE: &str = "weft.dev/proxy-image";
pub(super) const APPLICATION_METRICS: &str = "weft.dev/application-metrics";
pub(super) const PULL_SECRETS: &str = "weft.dev/proxy-pull-secrets";
pub(super) const EXCLUDE_OUTBOUND_PORTS: &str = "weft.dev/exclude-outbound-ports";
pub(super) const EXCLUDE_OUTBOUND_CIDRS: &str = "weft.dev/exclude-outbound-cidrs";
pub(super) const EXCLUDE_INBOUND: &str = EXCLUDE_INBOUND_PORTS;

const fn of(name: &'static str, form: Form, used: Use, help: &'static str) -> Annotation {
    Annotation {
        name,
        form,
        used,
        help,
    }
}

const fn knob(
    name: &'static str,
    variable: &'static str,
    form: Form,
    help: &'static str,
) -> Annotation {
    of(name, form, Use::Knob(variable), help)
}

/// In the order of docs/injection.md.
#[rustfmt::skip]
pub(crate) const ALL: &[Annotation] = &[
    of(CPU_REQUEST, Form::Cpu, Use::Pod, "CPU that the proxy requests"),
    of(CPU_LIMIT, Form::Cpu, Use::Pod, "CPU that the proxy is limited to; none, unless the namespace or a Guaranteed pod demands one"),
    of(MEMORY_REQUEST, Form::Memory, Use::Pod, "memory that the proxy requests"),
    of(MEMORY_LIMIT, Form::Memory, Use::Pod, "memory that the proxy is limited to; none, unless the namespace or a Guaranteed pod demands one"),
    of(IMAGE, Form::Text, Use::Pod, "image of the proxy, to try another one with this pod"),
    of(PULL_SECRETS, Form::Names, Use::Pod, "Secrets of the pod's namespace that nodes show the registry of the proxy's image, instead of the installation's"),
    of(EXCLUDE_OUTBOUND_PORTS, Form::Ports, Use::Pod, "destination ports that the workload reaches without the proxy"),
    of(EXCLUDE_OUTBOUND_CIDRS, Form::Ranges, Use::Pod, "destinations that the workload reaches without the proxy"),
    of(EXCLUDE_INBOUND, Form::Ports, Use::Pod, "ports of the workload that are reached without the proxy: no policy protects them"),
    of(WEIGHT, Form::Number(1, 65_535), Use::ControlPlane, "share of the pod where a BackendPolicy balances by weight"),
    knob("weft.dev/workers", "WEFT_WORKERS", Form::Number(1, 256), "threads that carry traffic"),
    knob("weft.dev/max-connections", "WEFT_MAX_CONNECTIONS", Form::Number(1, 10_000_000), "most accepted connections at a time"),
    knob("weft.dev/drain-grace", "WEFT_DRAIN_GRACE", Form::Duration, "after the application has ended, what is in flight has so long to finish"),
    knob("weft.dev/log", "WEFT_LOG", Form::LogFilter, "log filter, such as info,weft_proxy::tls=debug"),
    knob("weft.dev/log-format", "WEFT_LOG_FORMAT", Form::OneOf(&["text", "json"]), "form of the log lines"),
    knob("weft.dev/access-log", "WEFT_ACCESS_LOG", Form::OneOf(&["off", "errors", "all"]), "which requests get a line"),
    knob("weft.dev/access-log-per-second", "WEFT_ACCESS_LOG_PER_SECOND", Form::Number(1, 1_000_000), "most lines a second while only errors are logged"),
    knob("weft.dev/client-silence", "WEFT_CLIENT_SILENCE", Form::Duration, "after so much silence of the client an endpoint is dialled, so that the server can speak first"),
    knob("weft.dev/handshake-timeout", "WEFT_HANDSHAKE_TIMEOUT", Form::Duration, "a TLS handshake of a caller must end within"),
    knob("weft.dev/keepalive", "WEFT_KEEPALIVE", Form::Duration, "TCP keep-alive: idle time before the first probe"),
    knob("weft.dev/user-timeout", "WEFT_USER_TIMEOUT", Form::Duration, "sent bytes that nobody acknowledged for so long end the connection"),
    knob("weft.dev/max-header-bytes", "WEFT_MAX_HEADER_BYTES", Form::Number(1024, 1 << 20), "longest header section"),
    knob("weft.dev/max-headers", "WEFT_MAX_HEADERS", Form::Number(16, 4096), "most fields in a header section"),
    knob("weft.dev/max-target-bytes", "WEFT_MAX_TARGET_BYTES", Form::Number(256, 1 << 20), "longest request target"),
    knob("weft.dev/header-timeout", "WEFT_HEADER_TIMEOUT", Form::Duration, "a begun header section must be complete within"),
    knob("weft.dev/keep-alive-timeout", "WEFT_KEEP_ALIVE_TIMEOUT", Form::DurationOrNone, "how long an idle connection of a caller is kept"),
    knob("weft.dev/max-streams", "WEFT_MAX_STREAMS", Form::Number(1, 1_000_000), "most concurrent HTTP/2 streams of one connection"),
    knob("weft.dev/stream-window", "WEFT_STREAM_WINDOW", Form::Number(65_535, 2_147_483_647), "HTTP/2 flow-control window of a stream, in bytes"),
    knob("weft.dev/connection-window", "WEFT_CONNECTION_WINDOW", Form::Number(65_535, 2_147_483_647), "HTTP/2 flow-control window of a connection, in bytes"),
    knob("weft.dev/max-pending-resets", "WEFT_MAX_PENDING_RESETS", Form::Number(1, 100_000), "streams that a peer may reset before they were accepted"),
    knob("weft.dev/pool-max-idle", "WEFT_POOL_MAX_IDLE", Form::Number(0, 1_000_000), "idle connections kept per worker and endpoint"),
    knob("weft.dev/pool-idle-timeout", "WEFT_POOL_IDLE_TIMEOUT", Form::Duration, "an idle connection to an endpoint is closed after"),
    knob("weft.dev/ask-timeout", "WEFT_ASK_TIMEOUT", Form::Duration, "how long a connection waits to learn what its destination is"),
    knob("weft.dev/subscription-idle", "WEFT_SUBSCRIPTION_IDLE", Form::Duration, "a destination that nothing used for so long is watched no longer"),
    knob("weft.dev/max-subscriptions", "WEFT_MAX_SUBSCRIPTIONS", Form::Number(1, 1_000_000), "addresses that are kept up to date at once"),
    knob(APPLICATION_METRICS, "WEFT_APPLICATION_METRICS", Form::Page, "the application's page of metrics, which the proxy serves at port 15020 as `/application/metrics` to whoever reaches it, whatever policy says"),
    knob("weft.dev/metric-series", "WEFT_METRIC_SERIES", Form::Number(10, 1_000_000), "most label sets of traffic metrics"),
    knob("weft.dev/metric-idle", "WEFT_METRIC_IDLE", Form::Duration, "a label set that nothing changed for so long is forgotten"),
    of(TRUST_BUNDLE, Form::Text, Use::Written, "roots that the proxy begins with"),
    of(PROBES, Form::Text, Use::Written, "the pod's own probes and hooks, which the proxy carries out"),
];

/// Annotations of the mesh, all of them known and good.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Annotations(BTreeMap<&'static str, String>);

impl Annotations {
    /// # Errors
    /// The first that is unknown, or whose value can't be.
    pub(super) fn read(all: &BTreeMap<String, String>) -> Result<Self, Refusal> {
        let mut read = BTreeMap::new();
        for (name, value) in all.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            let field = format!("metadata.annotations[{name:?}]");
            let Some(known) = ALL.iter().find(|it| it.name == name) else {
                let message = "is no annotation of the mesh";
                let remedy = format!("correct its name{}, or remove it", likely(name));
                return Err(Refusal::new(&field, message, remedy));
            };
            let value = value.trim();
            if !known.form.takes(value) {
                let expected = format!("{}, or remove it", known.form.describe());
                return Err(Refusal::value(&field, format!("{value:?}"), &expected));
            }
            read.insert(known.name, value.to_owned());
        }
        Ok(Self(read))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Knobs of the proxy with their values.
    pub(super) fn knobs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        ALL.iter().filter_map(|known| match known.used {
            Use::Knob(variable) => Some((variable, self.get(known.name)?)),
            _ => None,
        })
    }
}

/// The name that was meant, where all but two letters fit.
fn likely(name: &str) -> String {
    let nearest = ALL.iter().filter(|it| it.used != Use::Written);
    let nearest = nearest
        .map(|it| (distance(name, it.name), it.name))
        .min()
        .filter(|(far, _)| *far <= 2);
    nearest.map_or_else(String::new, |(_, it)| format!(" to {it}"))
}

/// Letters to insert, remove or replace (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, left) in one.bytes().enumerate() {
        let mut diagonal = line;
        let mut before = line + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(other.bytes()) {
            let replaced = diagonal + usize::from(left != right);
            diagonal = *cell;
            before = replaced.min(*cell + 1).min(before + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

impl Form {
    /// To be read after "write" and before a full stop.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Cpu => "CPUs, like 100m or 1".to_owned(),
            Self::Memory => "bytes, like 64Mi or 1Gi".to_owned(),
            Self::Ports => r#"ports with commas between them, like "9000,9001""#.to_owned(),
            Self::Ranges => "CIDRs with commas between them, like 10.0.0.0/8,fd00::/8".to_owned(),
            Self::Names => {
                "names of objects with commas between them, like registry-1,registry-2".to_owned()
            }
            Self::Page => "a port and a path, like 9090/metrics".to_owned(),
            Self::Number(least, most) => format!("a whole number from {least} to {most}"),
            Self::Duration => "a duration, like 5ms, 30s, 10m or 24h".to_owned(),
            Self::DurationOrNone => "a duration, like 30s, or none".to_owned(),
            Self::OneOf(values) => format!("one of {}", values.join(", ")),
            Self::LogFilter => "a log filter, like info or info,weft_proxy=debug".to_owned(),
            Self::Text => "a text".to_owned(),
        }
    }

    /// What this takes, a proxy takes as well; a test holds both together.
    pub(crate) fn takes(self, text: &str) -> bool {
        let list =
            |fits: fn(&str) -> bool| !text.is_empty() && text.split(',').map(str::trim).all(fits);
        match self {
            Self::Cpu | Self::Memory => resources::amount(text).is_some_and(|it| it > 0),
            Self::Ports => list(|it| it.parse::<u16>().is_ok_and(|port| port > 0)),
            Self::Ranges => list(is_range),
            Self::Names => list(is_name),
            Self::Page => is_page(text),
            Self::Number(least, most) => text
                .parse()
                .is_ok_and(|it: u64| (least..=most).contains(&it)),
            Self::Duration => is_duration(text),
            Self::DurationOrNone => text == "none" || is_duration(text),
            Self::OneOf(values) => values.contains(&text),
            Self::LogFilter => {
                !text.is_empty() && text.parse::<tracing_subscriber::EnvFilter>().is_ok()
            }
            Self::Text => !text.is_empty(),
        }
    }
}

/// Of the application: the mesh's own ports would lead back to the proxy.
fn is_page(text: &str) -> bool {
    let Some((port, path)) = text.split_once('/') else {
        return false;
    };
    let is_own = |port: u16| PROXY_PORTS.contains(&port.into());
    let is_path = path.bytes().all(|it| it.is_ascii_graphic() && it != b'#');
    let port = port.parse::<u16>().ok();
    port.is_some_and(|it| it > 0 && !is_own(it))
        && is_path
        && format!("/{path}").parse::<http::Uri>().is_ok()
}

/// RFC 1123 subdomain.
pub(super) fn is_name(text: &str) -> bool {
    let is_label = |it: &str| {
        let within = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let all = it.bytes().all(|letter| within(letter) || letter == b'-');
        !it.is_empty() && it.len() <= 63 && all && !it.starts_with('-') && !it.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_range(text: &str) -> bool {
    let parse = || {
        let (base, length) = text.split_once('/')?;
        let base: std::net::IpAddr = base.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        Some(length <= if base.is_ipv4() { 32 } else { 128 })
    };
    parse().unwrap_or_default()
}

/// A day is longer than anything that these bound, and far from any overflow.
fn is_duration(text: &str) -> bool {
    let unit = text.find(|letter: char| !letter.is_ascii_digit());
    let Some((number, unit)) = unit.and_then(|at| text.split_at_checked(at)) else {
        return false;
    };
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return false,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|it| it.checked_mul(milliseconds))
        .is_some_and(|it| it <= 24 * 3_600_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Annotations, Refusal> {
        Annotations::read(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn a_slip_of_the_pen_is_told_the_name_that_was_meant() {
        let refusal = read("weft.dev/exclude-inbound-port", "80").unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "metadata.annotations[\"weft.dev/exclude-inbound-port\"] is no annotation of the mesh: \
             correct its name to weft.dev/exclude-inbound-ports, or remove it"
        );
        let refusal = read("weft.dev/nothing-of-the-kind", "80").unwrap_err();
        assert_eq!(refusal.remedy, "correct its name, or remove it");
    }

    #[test]
    fn annotations_of_others_are_left_alone() {
        assert_eq!(
            read("prometheus.io/scrape", "true"),
            Ok(Annotations::default())
        );
    }

    #[test]
    fn a_bad_value_is_refused_with_the_remedy() {
        for (name, value, remedy) in [
            (
                CPU_LIMIT,
                "lots",
                "write CPUs, like 100m or 1, or remove it",
            ),
            (CPU_LIMIT, "0", "write CPUs, like 100m or 1, or remove it"),
            (
                MEMORY_REQUEST,
                "64MB",
                "write bytes, like 64Mi or 1Gi, or remove it",
            ),
            (
                EXCLUDE_OUTBOUND_PORTS,
                "80;81",
                r#"write ports with commas between them, like "9000,9001", or remove it"#,
            ),
            (
                EXCLUDE_OUTBOUND_CIDRS,
                "10.0.0.0/33",
                "write CIDRs with commas between them, like 10.0.0.0/8,fd00::/8, or remove it",
            ),
            (
                PULL_SECRETS,
                "Registry",
                "write names of objects with commas between them, like registry-1,registry-2, or remove it",
            ),
            (
                APPLICATION_METRICS,
                "15020/application/metrics",
                "write a port and a path, like 9090/metrics, or remove it",
            ),
            (
                "weft.dev/workers",
                "0",
                "write a whole number from 1 to 256, or remove it",
            ),
            (
                "weft.dev/drain-grace",
                "25",
                "write a duration, like 5ms, 30s, 10m or 24h, or remove it",
            ),
            (
                "weft.dev/access-log",
                "yes",
                "write one of off, errors, all, or remove it",
            ),
            (
                "weft.dev/log",
                "=nonsense=",
                "write a log filter, like info or info,weft_proxy=debug, or remove it",
            ),
        ] {
            let refusal = read(name, value).unwrap_err();
            assert_eq!(refusal.remedy, remedy, "{name}: {value}");
            assert!(refusal.field.contains(name), "{}", refusal.field);
        }
    }

    #[test]
    fn knobs_come_out_by_their_variables() {
        let read = read("weft.dev/max-streams", " 100 ").unwrap();
        assert_eq!(
            read.knobs().collect::<Vec<_>>(),
            [("WEFT_MAX_STREAMS", "100")]
        );
    }

    #[test]
    fn no_name_is_declared_twice() {
        let mut names: Vec<_> = ALL.iter().map(|it| it.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
