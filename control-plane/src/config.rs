//! Every knob of `weft-control-plane`, declared once: option, environment
//! variable, default, and why.
//!
//! Parsed by `main` before anything runs, into what `app` builds from. All that
//! is wrong is told before the start; nothing else reads the environment.

mod injection;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Parser, ValueEnum};

use crate::{identity, serve::accept::Address};

pub(crate) use injection::Injection;

/// Streams configuration to the proxies of a mesh, and certifies them.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-control-plane", version)]
pub struct Config {
    /// Where objects come from, `files:DIR` or `kubernetes`; of several, a later one's object replaces an earlier one's
    #[arg(long = "source", env = "WEFT_SOURCE", required = true, value_delimiter = ',', value_parser = source)]
    pub(crate) sources: Vec<Source>,

    /// Directory of the root, its key and the token key, made at the first start; needed unless the authority is the cluster's
    #[arg(long, alias = "state", env = "WEFT_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// `kubernetes`: the root lives in a Secret and tokens are the cluster's; `state-dir`: both of that directory; default: `kubernetes` where a source is, else `state-dir`
    #[arg(long, env = "WEFT_AUTHORITY", value_name = "WHERE")]
    authority: Option<AuthorityFrom>,

    /// Secret of tls.crt, tls.key and ca.crt that somebody else makes; default: `weft-ca`, made at the first start
    #[arg(long, env = "WEFT_AUTHORITY_SECRET", value_name = "NAME")]
    pub(crate) authority_secret: Option<String>,

    /// Namespace of the control plane's own objects
    #[arg(long, env = "WEFT_NAMESPACE", default_value = "weft-system")]
    pub(crate) namespace: String,

    /// Name of this replica among others, its pod's; default: the host's name
    #[arg(long, env = "WEFT_REPLICA", value_name = "NAME")]
    pub(crate) replica: Option<String>,

    /// Where proxies connect, ADDRESS:PORT or unix:PATH; TLS 1.3 on both
    #[arg(long, env = "WEFT_LISTEN", default_value = "[::]:15010", value_parser = address)]
    pub(crate) listen: Address,

    /// Trust domain of every identity; can't change once there is a root
    #[arg(long, env = "WEFT_TRUST_DOMAIN", default_value = "cluster.local", value_parser = trust_domain)]
    pub(crate) trust_domain: String,

    /// CIDR of the mesh's addresses, repeated or separated by commas; default: the addresses that there are
    #[arg(long = "range", env = "WEFT_RANGES", value_delimiter = ',', value_parser = range)]
    pub(crate) ranges: Vec<(IpAddr, u8)>,

    // A day: a stolen key is of little use, and a lost control plane is noticed
    // long before traffic depends on it.
    /// How long a certificate is valid, 10s or more
    #[arg(long, env = "WEFT_CERTIFICATE_LIFETIME", default_value = "24h", value_parser = lifetime)]
    pub(crate) certificate_lifetime: Duration,

    // Two of them bound how long a half-dead stream goes unnoticed.
    /// How often each proxy is told the newest versions and must answer
    #[arg(long, env = "WEFT_HEARTBEAT", default_value = "5s", value_parser = heartbeat)]
    pub(crate) heartbeat: Duration,

    /// Directory or file of further roots in PEM, read again on change; default: `roots` in the state directory
    #[arg(long, env = "WEFT_EXTRA_ROOTS", value_name = "PATH")]
    pub(crate) extra_roots: Option<PathBuf>,

    // Two sockets per proxy while it renews; each costs about 50 KiB of TLS and HTTP/2 state.
    /// Most open connections of proxies
    #[arg(long, env = "WEFT_MAX_CONNECTIONS", default_value_t = 20_000)]
    pub(crate) max_connections: usize,

    /// Where /live, /ready and /metrics are served in plaintext; default: nowhere
    #[arg(long, env = "WEFT_HEALTH_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) health_listen: Option<SocketAddr>,

    /// Where the API server asks the webhook, with TLS; needs the cluster's authority; default: nowhere
    #[arg(long, env = "WEFT_WEBHOOK_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) webhook_listen: Option<SocketAddr>,

    #[command(flatten)]
    pub(crate) injection: Injection,

    /// Unix socket on which `weft status` asks; default: none
    #[arg(long, env = "WEFT_STATUS_SOCKET", value_name = "PATH")]
    pub(crate) status_socket: Option<PathBuf>,

    // Whoever may forward a port into the pod may look: the API server decides.
    /// The same over TCP, on a loopback address, for `weft status` through a port-forward; default: nowhere
    #[arg(long, env = "WEFT_STATUS_LISTEN", value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub(crate) status_listen: Option<SocketAddr>,

    /// What is logged, as `level` or `module=level,...`
    #[arg(long, env = "WEFT_LOG", default_value = "info")]
    pub log: String,
}

/// Who keeps the root, and says whose a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum AuthorityFrom {
    Kubernetes,
    StateDir,
}

impl Config {
    /// As it is told, else where the objects are.
    pub(crate) fn authority(&self) -> AuthorityFrom {
        self.authority
            .unwrap_or_else(|| match self.sources.contains(&Source::Kubernetes) {
                true => AuthorityFrom::Kubernetes,
                false => AuthorityFrom::StateDir,
            })
    }
}

/// Where objects come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Files(PathBuf),
    /// As `KUBECONFIG` or the pod's service account says.
    Kubernetes,
}

fn source(text: &str) -> Result<Source, String> {
    match text.split_once(':') {
        None if text == "kubernetes" => Ok(Source::Kubernetes),
        Some(("files", directory)) if !directory.is_empty() => Ok(Source::Files(directory.into())),
        _ => Err("a source is files:DIR or kubernetes".to_owned()),
    }
}

fn address(text: &str) -> Result<Address, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("unix: needs a path".to_owned()),
        Some(path) => Ok(Address::Unix(path.into())),
        None => text
            .parse()
            .map(Address::Tcp)
            .map_err(|_| "an address is ADDRESS:PORT or unix:PATH".to_owned()),
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        _ => Err("an address of the loopback and a port: 127.0.0.1:15022".to_owned()),
    }
}

pub(crate) fn trust_domain(text: &str) -> Result<String, String> {
    // SPIFFE-ID §2.1: lower case.
    match identity::is_part(text) && !text.bytes().any(|it| it.is_ascii_uppercase()) {
        true => Ok(text.to_owned()),
        false => Err(
            "a trust domain is of lower-case letters, digits, dots, dashes and underscores"
                .to_owned(),
        ),
    }
}

fn range(text: &str) -> Result<(IpAddr, u8), String> {
    let parse = || {
        let (base, length) = text.split_once('/')?;
        let (base, length): (IpAddr, u8) = (base.parse().ok()?, length.parse().ok()?);
        let most = if base.is_ipv4() { 32 } else { 128 };
        (length <= most).then_some((base, length))
    };
    parse().ok_or_else(|| "a range is ADDRESS/LENGTH".to_owned())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        it if it < Duration::from_secs(10) => {
            Err("at least 10s: proxies have to renew in time".to_owned())
        }
        it if it > Duration::from_secs(366 * 86_400) => Err("at most a year".to_owned()),
        it => Ok(it),
    }
}

fn heartbeat(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        it if it < Duration::from_millis(10) => Err("at least 10ms".to_owned()),
        it if it > Duration::from_secs(3600) => Err("at most 1h".to_owned()),
        it => Ok(it),
    }
}

/// A number with its unit: 250ms, 10s, 5m, 24h.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text
        .find(|it: char| !it.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(unit_at).unwrap_or_default();
    let parse = || {
        let number: u64 = number.parse().ok()?;
        match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
            "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
            _ => None,
        }
    };
    parse().ok_or_else(|| "a duration is a number and ms, s, m or h: 250ms, 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declaration_holds_together() {
        Config::command().debug_assert();
    }

    #[test]
    fn every_knob_can_be_set_by_environment() {
        for argument in Config::command().get_arguments() {
            let name = argument
                .get_env()
                .and_then(|it| it.to_str())
                .unwrap_or_default();
            assert!(name.starts_with("WEFT_"), "{argument}");
        }
    }

    #[test]
    fn the_authority_is_where_the_objects_are_unless_told_otherwise() {
        let authority = |arguments: &[&str]| {
            let named = ["weft-control-plane", "--source"];
            let all = named.iter().chain(arguments);
            Config::try_parse_from(all).unwrap().authority()
        };
        assert_eq!(authority(&["kubernetes"]), AuthorityFrom::Kubernetes);
        assert_eq!(authority(&["files:a"]), AuthorityFrom::StateDir);
        let both = authority(&["files:a,kubernetes"]);
        assert_eq!(both, AuthorityFrom::Kubernetes);
        let told = authority(&["kubernetes", "--authority", "state-dir"]);
        assert_eq!(told, AuthorityFrom::StateDir);
        let told = authority(&["files:a", "--authority", "kubernetes"]);
        assert_eq!(told, AuthorityFrom::Kubernetes);
    }

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(lifetime("9s").is_err() && heartbeat("1ms").is_err());
    }

    #[test]
    fn an_address_is_a_socket_of_either_kind() {
        assert_eq!(
            address("unix:/run/weft"),
            Ok(Address::Unix("/run/weft".into()))
        );
        assert_eq!(
            address("[::]:1"),
            Ok(Address::Tcp("[::]:1".parse().unwrap()))
        );
        assert!(address("weft").is_err() && address("unix:").is_err());
        assert!(loopback("127.0.0.1:1").is_ok() && loopback("[::1]:1").is_ok());
        assert!(loopback("0.0.0.0:1").is_err() && loopback("[::]:1").is_err());
        assert!(
            range("10.0.0.0/33").is_err()
                && range("fd00::/129").is_err()
                && range("10.0.0.0").is_err()
        );
    }
}
