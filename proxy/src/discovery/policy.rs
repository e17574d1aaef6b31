//! How a service is reached: BackendPolicy with its defaults filled in, and
//! what the Service itself asks for.
//!
//! Data, one value per backend. The defaults hold where no policy speaks; the
//! control plane sends the same ones.

use std::time::Duration;

/// BackendPolicy with its defaults filled in.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct BackendPolicy {
    pub(crate) load_balancing: LoadBalancing,
    pub(crate) circuit_breaking: CircuitBreaking,
    pub(crate) limits: Limits,
    pub(crate) retries: Retries,
    pub(crate) timeouts: Timeouts,
    /// `internalTrafficPolicy: Local`.
    pub(crate) own_node_only: bool,
    /// `sessionAffinity: ClientIP`: for so long after its last call a caller
    /// stays with its endpoint.
    pub(crate) affinity: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LoadBalancing {
    /// Power of two choices over peak-EWMA latency times requests in flight.
    PeakEwma,
    RoundRobin,
    /// By endpoint weight.
    Weighted,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CircuitBreaking {
    /// Exactly so many in a row eject; 0 never does.
    pub(crate) consecutive_failures: u32,
    pub(crate) base_ejection: Duration,
    pub(crate) max_ejection: Duration,
    /// 0 to 100, of the backend's endpoints; the last one never.
    pub(crate) max_ejected_percent: u32,
}

/// Per proxy and backend; `None` is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: Option<u32>,
    pub(crate) requests: Option<u32>,
    pub(crate) pending: Option<u32>,
    pub(crate) pending_timeout: Duration,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Retries {
    /// Beyond the first try.
    pub(crate) attempts: u32,
    pub(crate) status_codes: Vec<u16>,
    pub(crate) grpc_statuses: Vec<u8>,
    pub(crate) non_idempotent: bool,
    pub(crate) per_try_timeout: Option<Duration>,
    /// Waited at least, before what `base_backoff` and `max_backoff` add
    /// (HTTPRouteRetry.backoff).
    pub(crate) least_backoff: Duration,
    pub(crate) base_backoff: Duration,
    pub(crate) max_backoff: Duration,
    pub(crate) budget_percent: u32,
    pub(crate) budget_minimum_per_second: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) request: Option<Duration>,
}

impl Default for BackendPolicy {
    /// What holds where no BackendPolicy speaks: `docs/configuration.md`, "Defaults".
    fn default() -> Self {
        Self {
            load_balancing: LoadBalancing::PeakEwma,
            circuit_breaking: CircuitBreaking {
                consecutive_failures: 5,
                base_ejection: Duration::from_secs(5),
                max_ejection: Duration::from_secs(300),
                max_ejected_percent: 50,
            },
            limits: Limits {
                connections: None,
                requests: None,
                pending: None,
                pending_timeout: Duration::from_secs(1),
            },
            retries: Retries {
                attempts: 0,
                status_codes: Vec::new(),
                grpc_statuses: Vec::new(),
                non_idempotent: false,
                per_try_timeout: None,
                least_backoff: Duration::ZERO,
                base_backoff: Duration::from_millis(25),
                max_backoff: Duration::from_millis(250),
                budget_percent: 20,
                budget_minimum_per_second: 3,
            },
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                first_byte: None,
                idle: None,
                request: None,
            },
            own_node_only: false,
            affinity: None,
        }
    }
}
