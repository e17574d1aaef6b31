//! A destination: the endpoints behind one service port, in the order of their
//! use, and the policy towards them.
//!
//! Data, built with the snapshot. `upstream::balance` asks it; what is counted
//! across workers hangs on it in `cells`.

use std::{ops::Range, sync::Arc};

use super::{
    BackendCells, BackendPolicy, Endpoint, EndpointKey, Here, LoadBalancing, Retries, Schedule,
    ServiceName, locality,
};

/// A destination: the endpoints behind one service port, and their policy.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) service: ServiceName,
    pub(crate) port: u16,
    pub(crate) policy: Arc<BackendPolicy>,
    /// Those of the tiers first, in their order.
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) cells: Arc<BackendCells>,
    tiers: Vec<Turns>,
    /// Of those of the tiers, ascending; empty unless a caller stays with one.
    by_key: Vec<(EndpointKey, usize)>,
}

/// A tier's place among the endpoints.
#[derive(Clone, Debug)]
struct Turns {
    range: Range<usize>,
    schedule: Option<Schedule>,
}

/// Endpoints that are used when nobody of the tiers before can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tier<'a> {
    pub(crate) endpoints: &'a [Arc<Endpoint>],
    /// Their turns; `None` unless the policy balances by weight.
    pub(crate) schedule: Option<&'a Schedule>,
}

impl Backend {
    /// The endpoints' cells were made for `cells`. When none is ready, those
    /// that drain are used: their applications still serve (KEP-1669).
    pub(crate) fn new(
        service: ServiceName,
        port: u16,
        policy: Arc<BackendPolicy>,
        endpoints: Vec<Arc<Endpoint>>,
        cells: Arc<BackendCells>,
    ) -> Self {
        Self::seen_from(&Here::default(), service, port, policy, endpoints, cells)
    }

    /// The same for a caller that runs `here`.
    pub(crate) fn seen_from(
        here: &Here,
        service: ServiceName,
        port: u16,
        policy: Arc<BackendPolicy>,
        mut endpoints: Vec<Arc<Endpoint>>,
        cells: Arc<BackendCells>,
    ) -> Self {
        let ends = locality::arrange(&mut endpoints, policy.own_node_only, here);
        let mut backend = Self {
            service,
            port,
            policy,
            endpoints,
            cells,
            tiers: Vec::new(),
            by_key: Vec::new(),
        };
        backend.divide(&ends);
        backend
    }

    /// Into tiers that end there.
    fn divide(&mut self, ends: &[usize]) {
        let is_weighted = self.policy.load_balancing == LoadBalancing::Weighted;
        let begins = std::iter::once(0).chain(ends.iter().copied());
        self.tiers = begins
            .zip(ends)
            .map(|(begin, end)| {
                let range = begin..*end;
                let members = self.endpoints.get(range.clone()).unwrap_or_default();
                let weights = members.iter().map(|endpoint| endpoint.weight);
                Turns {
                    schedule: is_weighted.then(|| Schedule::new(weights)),
                    range,
                }
            })
            .collect();
        if self.policy.affinity.is_some() {
            let keys = self.ready().iter().map(|endpoint| endpoint.key);
            let mut by_key: Vec<_> = keys.zip(0..).collect();
            by_key.sort_unstable();
            self.by_key = by_key;
        }
    }

    /// The same destination as a rule with its own retries sees it.
    pub(crate) fn with_retries(&self, retries: Retries) -> Self {
        let policy = BackendPolicy {
            retries,
            ..BackendPolicy::clone(&self.policy)
        };
        Self {
            service: self.service.clone(),
            port: self.port,
            policy: Arc::new(policy),
            endpoints: self.endpoints.clone(),
            cells: Arc::clone(&self.cells),
            tiers: self.tiers.clone(),
            by_key: self.by_key.clone(),
        }
    }

    /// For a pod that was called by its own address: whoever named it wants that
    /// one, draining or not, for as long as its application serves.
    #[must_use]
    pub(crate) fn called_by_address(mut self) -> Self {
        let all = self.endpoints.len();
        self.divide(&[all]);
        self
    }

    /// The endpoints that may get new requests.
    pub(crate) fn ready(&self) -> &[Arc<Endpoint>] {
        let end = self.tiers.last().map_or(0, |tier| tier.range.end);
        self.endpoints.get(..end).unwrap_or_default()
    }

    /// The same, those first that are used before others.
    pub(crate) fn tiers(&self) -> impl Iterator<Item = Tier<'_>> {
        self.tiers.iter().map(|tier| Tier {
            endpoints: self.endpoints.get(tier.range.clone()).unwrap_or_default(),
            schedule: tier.schedule.as_ref(),
        })
    }

    /// Which tier the endpoint at this place belongs to; `None`: it gets no new
    /// request.
    pub(crate) fn tier_of(&self, at: usize) -> Option<usize> {
        self.tiers.iter().position(|tier| tier.range.contains(&at))
    }

    /// One that may get new requests. Only where callers stay with one.
    pub(crate) fn find(&self, key: EndpointKey) -> Option<&Arc<Endpoint>> {
        let found = self.by_key.binary_search_by_key(&key, |(key, _)| *key);
        let (_, at) = self.by_key.get(found.ok()?)?;
        self.endpoints.get(*at)
    }
}
