//! Policies of our own, as sources say them.
//!
//! Sources make them from manifests and have checked every range; `index`
//! attaches them to services and workloads. What they refer to may not exist.

use std::collections::BTreeSet;

use super::{Labels, Name};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackendPolicyObject {
    pub name: Name,
    /// `metadata.uid`; empty where the source knows none.
    pub uid: String,
    pub created_milliseconds: i64,
    /// `metadata.generation`; 0 where the source knows none.
    pub generation: i64,
    /// Services in its own namespace.
    pub targets: Vec<String>,
    pub policy: BackendPolicy,
}

/// Milliseconds everywhere; 0 is none but for `connect`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendPolicy {
    pub load_balancing: LoadBalancing,
    pub consecutive_failures: u32,
    pub base_ejection: u64,
    pub max_ejection: u64,
    pub max_ejected_percent: u32,
    pub connections: u32,
    pub requests: u32,
    pub pending: u32,
    pub pending_timeout: u64,
    pub attempts: u32,
    pub retry_status_codes: Vec<u16>,
    pub retry_grpc_statuses: Vec<u8>,
    pub retry_non_idempotent: bool,
    pub per_try_timeout: u64,
    pub base_backoff: u64,
    pub max_backoff: u64,
    pub budget_percent: u32,
    pub budget_minimum_per_second: u32,
    pub connect_timeout: u64,
    pub first_byte_timeout: u64,
    pub idle_timeout: u64,
    pub request_timeout: u64,
}

impl Default for BackendPolicy {
    fn default() -> Self {
        Self {
            load_balancing: LoadBalancing::PeakEwma,
            consecutive_failures: 5,
            base_ejection: 5_000,
            max_ejection: 300_000,
            max_ejected_percent: 50,
            connections: 0,
            requests: 0,
            pending: 0,
            pending_timeout: 1_000,
            attempts: 0,
            retry_status_codes: Vec::new(),
            retry_grpc_statuses: Vec::new(),
            retry_non_idempotent: false,
            per_try_timeout: 0,
            base_backoff: 25,
            max_backoff: 250,
            budget_percent: 20,
            budget_minimum_per_second: 3,
            connect_timeout: 5_000,
            first_byte_timeout: 0,
            idle_timeout: 0,
            request_timeout: 0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadBalancing {
    PeakEwma,
    RoundRobin,
    Weighted,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessPolicy {
    pub name: Name,
    /// `metadata.uid`; empty where the source knows none.
    pub uid: String,
    /// `metadata.generation`; 0 where the source knows none.
    pub generation: i64,
    pub targets: Vec<AccessTarget>,
    /// Empty: every port.
    pub ports: BTreeSet<u16>,
    /// `None`: it doesn't say.
    pub strict: Option<bool>,
    pub rules: Vec<AccessRule>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessTarget {
    /// Every workload of its own namespace.
    Namespace,
    /// Pods of its own namespace with these labels.
    Selected(Labels),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessRule {
    pub deny: bool,
    pub identities: Vec<String>,
    pub namespaces: Vec<String>,
    pub methods: Vec<String>,
    pub path_prefixes: Vec<String>,
}
