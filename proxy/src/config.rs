//! Every knob of the proxy, and the typed configuration made of them.
//!
//! Shell. `config/knobs.rs` declares each knob once; this file groups their
//! values by who uses them. `app` hands the groups to the modules. The only
//! place that reads the environment.

mod knobs;
mod parse;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{admin, record::Mode, telemetry::Format};

pub(crate) use knobs::{ALL, Knob};
pub use parse::Errors;

/// Everything. `app::run` takes it.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) pod: Pod,
    pub(crate) control: Control,
    pub(crate) listen: Listen,
    pub(crate) sockets: Sockets,
    pub(crate) detect: Detect,
    pub(crate) http: Http,
    pub(crate) pool: Pool,
    pub(crate) admin: admin::Config,
    pub(crate) drain: Drain,
    pub(crate) telemetry: Telemetry,
    pub(crate) workers: usize,
}

/// Who we are.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) service_account: String,
    pub(crate) trust_domain: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Control {
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) token_file: PathBuf,
    pub(crate) trust_bundle_file: PathBuf,
    pub(crate) state_dir: PathBuf,
    /// How long a connection waits for the meaning of its destination.
    pub(crate) ask_timeout: Duration,
    /// A subscription that nothing used for so long ends.
    pub(crate) subscription_idle: Duration,
    /// Addresses that are kept up to date at once.
    pub(crate) max_subscriptions: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Listen {
    pub(crate) outbound: SocketAddr,
    pub(crate) inbound: SocketAddr,
    /// Of all workers together.
    pub(crate) max_connections: usize,
}

/// Options of every socket that carries traffic.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    /// Set on our own connections, where the uid can't mark them.
    pub(crate) mark: Option<u32>,
    pub(crate) keepalive: Duration,
    pub(crate) user_timeout: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Detect {
    /// After so much silence of the client an endpoint is dialled.
    pub(crate) client_silence: Duration,
    /// A TLS handshake must end within.
    pub(crate) handshake_timeout: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) max_header_bytes: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_target_bytes: usize,
    pub(crate) header_timeout: Duration,
    /// How long an idle keep-alive connection of a caller is kept; `None` is for ever.
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) max_streams: u32,
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) max_pending_resets: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Pool {
    /// Idle connections kept per worker and endpoint.
    pub(crate) max_idle: usize,
    pub(crate) idle_timeout: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Drain {
    /// After SIGTERM, what is in flight has so long to finish.
    pub(crate) grace: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    pub(crate) filter: String,
    pub(crate) format: Format,
    pub(crate) access: Mode,
    pub(crate) access_per_second: u32,
    pub(crate) series: usize,
    pub(crate) series_idle: Duration,
}

impl Config {
    /// Reads every knob from `source`.
    ///
    /// # Errors
    /// All knobs that are missing or wrong, together.
    pub fn from_source(source: impl Fn(&str) -> Option<String>) -> Result<Self, Errors> {
        let mut reader = parse::Reader::new(&source);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    /// Reads every knob from the process's environment.
    ///
    /// # Errors
    /// All knobs that are missing or wrong, together.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub fn from_environment() -> Result<Self, Errors> {
        Self::from_source(|name| std::env::var(name).ok())
    }

    /// Where the drain command goes; needs nothing else of the configuration.
    ///
    /// # Errors
    /// When the knob is wrong.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub fn admin_socket_from_environment() -> Result<PathBuf, Errors> {
        let source = |name: &str| std::env::var(name).ok();
        let mut reader = parse::Reader::new(&source);
        let socket = reader.path(&knobs::ADMIN_SOCKET);
        reader.finish(socket)
    }

    fn read(reader: &mut parse::Reader<'_>) -> Self {
        let sockets = Sockets::read(reader);
        Self {
            pod: Pod::read(reader),
            control: Control::read(reader),
            listen: Listen::read(reader),
            detect: Detect::read(reader),
            http: Http::read(reader),
            pool: Pool::read(reader),
            admin: admin_config(reader, sockets.mark),
            sockets,
            drain: Drain {
                grace: reader.duration(&knobs::DRAIN_GRACE),
            },
            telemetry: Telemetry::read(reader),
            workers: reader.number(&knobs::WORKERS, 1, 256),
        }
    }
}

impl Pod {
    fn read(reader: &mut parse::Reader<'_>) -> Self {
        Self {
            namespace: reader.text(&knobs::POD_NAMESPACE),
            name: reader.text(&knobs::POD_NAME),
            uid: reader.text(&knobs::POD_UID),
            service_account: reader.text(&knobs::SERVICE_ACCOUNT),
            trust_domain: reader.text(&knobs::TRUST_DOMAIN),
        }
    }
}

impl Control {
    fn read(reader: &mut parse::Reader<'_>) -> Self {
        Self {
            address: reader.text(&knobs::CONTROL_ADDRESS),
            token_file: reader.path(&knobs::TOKEN_FILE),
            trust_bundle_file: reader.path(&knobs::TRUST_BUNDLE_FILE),
            state_dir: reader.path(&knobs::STATE_DIR),
            ask_timeout: reader.duration(&knobs::ASK_TIMEOUT),
            subscription_idle: reader.duration(&knobs::SUBSCRIPTION_IDLE),
            max_subscriptions: reader.number(&knobs::MAX_SUBSCRIPTIONS, 1, 1_000_000),
        }
    }
}

impl Listen {
    fn read(reader: &mut parse::Reader<'_>) -> Self {
        Self {
            outbound: reader.address(&knobs::OUTBOUND_LISTEN),
            inbound: reader.address(&knobs::INBOUND_LISTEN),
            max_connections: reader.number(&knobs::MAX_CONNECTIONS, 1, 10_000_000),
        }
    }
}

impl Sockets {
    fn read(reader: &mut parse::Reader<'_>) -> Self {
        Self {
            mark: reader.number_or_none(&knobs::PROXY_MARK),
            keepalive: reader.duration(&knobs::KEEPALIVE),
            user_timeout: reader.duration(&knobs::USER_TIMEOUT),
        }
    }
}

impl Detect {
    fn read(reader: &mut parse::Reader<'_>) -> Self {
        Self {
            client_silence: reader.duration(&knobs::CLIENT_SILENCE),
            handshake_timeout: reader.duration(&knobs::HANDSHAKE_TIMEOUT),
        }
    }
}

impl Http {
    fn read(reader: &mut parse::Reader<'_>) -> Self {
        Self {
            max_header_bytes: reader.number(&knobs::MAX_HEADER_BYTES, 1024, 1 << 20),
            max_headers: reader.number(&knobs::MAX_HEADERS, 16, 4096),
            max_target_bytes: reader.number(&knobs::MAX_TARGET_BYTES, 256, 1 << 20),
            header_timeout: reader.duration(&knobs::HEADER_TIMEOUT),
            keep_alive: reader.duration_or_none(&knobs::KEEP_ALIVE_TIMEOUT),
            max_streams: reader.number(&knobs::MAX_STREAMS, 1, 1_000_000),
            stream_window: reader.number(&knobs::STREAM_WINDOW, 65_535, i32::MAX as u32),
            connection_window: reader.number(&knobs::CONNECTION_WINDOW, 65_535, i32::MAX as u32),
            max_pending_resets: reader.number(&knobs::MAX_PENDING_RESETS, 1, 100_000),
        }
    }
}

impl Pool {
    fn read(reader: &mut parse::Reader<'_>) -> Self {
        Self {
            max_idle: reader.number(&knobs::POOL_MAX_IDLE, 0, 1_000_000),
            idle_timeout: reader.duration(&knobs::POOL_IDLE_TIMEOUT),
        }
    }
}

fn admin_config(reader: &mut parse::Reader<'_>, mark: Option<u32>) -> admin::Config {
    admin::Config {
        metrics: reader.address(&knobs::METRICS_LISTEN),
        health: reader.address(&knobs::HEALTH_LISTEN),
        debug: reader.address(&knobs::DEBUG_LISTEN),
        socket: reader.path(&knobs::ADMIN_SOCKET),
        probes: reader.parsed(&knobs::PROBES),
        application: reader.parsed(&knobs::APPLICATION_METRICS),
        mark,
    }
}

impl Telemetry {
    fn read(reader: &mut parse::Reader<'_>) -> Self {
        let modes = [
            ("off", Mode::Off),
            ("errors", Mode::Errors),
            ("all", Mode::All),
        ];
        let formats = [("text", Format::Text), ("json", Format::Json)];
        Self {
            filter: reader.text(&knobs::LOG),
            format: reader
                .one_of(&knobs::LOG_FORMAT, &formats)
                .unwrap_or(Format::Json),
            access: reader
                .one_of(&knobs::ACCESS_LOG, &modes)
                .unwrap_or(Mode::Errors),
            access_per_second: reader.number(&knobs::ACCESS_LOG_PER_SECOND, 1, 1_000_000),
            series: reader.number(&knobs::METRIC_SERIES, 10, 1_000_000),
            series_idle: reader.duration(&knobs::METRIC_IDLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(name: &str) -> Option<String> {
        let value = match name {
            "WEFT_POD_NAMESPACE" => "shop",
            "WEFT_POD_NAME" => "cart-0",
            "WEFT_CONTROL_ADDRESS" => "control.weft-system:15010",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn every_default_is_valid() {
        let config = Config::from_source(required).unwrap();
        assert_eq!(config.pod.name, "cart-0");
        assert_eq!(config.detect.client_silence, Duration::from_millis(5));
        assert_eq!(config.sockets.mark, None);
        assert_eq!(config.workers, 1);
    }

    #[test]
    fn every_declared_knob_is_read_exactly_once() {
        let mut reader = parse::Reader::new(&required);
        let _config = Config::read(&mut reader);
        let mut read = reader.read.clone();
        read.sort_unstable();
        let mut declared: Vec<_> = ALL.iter().map(|knob| knob.name).collect();
        declared.sort_unstable();
        assert_eq!(read, declared);
    }

    #[test]
    fn all_errors_are_reported_together() {
        let source = |name: &str| match name {
            "WEFT_WORKERS" => Some("many".to_owned()),
            "WEFT_CLIENT_SILENCE" => Some("5".to_owned()),
            "WEFT_MAX_HEADERS" => Some("1".to_owned()),
            "WEFT_POD_NAME" => None,
            name => required(name),
        };
        let error = Config::from_source(source).unwrap_err().to_string();
        for part in [
            "WEFT_POD_NAME is not set",
            "WEFT_WORKERS: \"many\" is not a whole number",
            "WEFT_CLIENT_SILENCE: \"5\" is not a duration",
            "WEFT_MAX_HEADERS: 1 is not from 16 to 4096",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn an_empty_value_means_the_default() {
        let source = |name: &str| {
            if name == "WEFT_WORKERS" {
                Some(" ".to_owned())
            } else {
                required(name)
            }
        };
        assert_eq!(Config::from_source(source).unwrap().workers, 1);
    }
}
