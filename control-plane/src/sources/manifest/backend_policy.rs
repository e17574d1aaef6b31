//! BackendPolicy (weft.dev/v1alpha1): how a Service is called.
//!
//! The types are the reference of the kind: every field says what it does, its
//! default and its range. `ranges` holds them, so that no proxy meets a value
//! that it can't keep. The CustomResourceDefinition is made of the types
//! (`definition`): what they say of a field is what `kubectl explain` shows.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Refusal, check};
use crate::model::{self, BackendPolicyObject};

mod ranges;

use ranges::{circuit_breaking, limits, retries, timeouts};

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BackendPolicy {
    #[allow(dead_code, reason = "checked before the type is known")]
    api_version: String,
    #[allow(dead_code, reason = "checked before the type is known")]
    kind: String,
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: BackendPolicySpec,
    /// Written by the mesh; of no meaning in a file.
    #[allow(dead_code, reason = "accepted so that a copied object is a manifest")]
    #[serde(default)]
    status: serde_json::Value,
}

/// How proxies call a Service. A field left out means its default.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.retries) || !has(self.retries.perTryTimeout) || !has(self.timeouts) || !has(self.timeouts.request) || duration(self.retries.perTryTimeout) <= duration(self.timeouts.request) || duration(self.timeouts.request) == duration('0s')", "message": "retries.perTryTimeout is longer than timeouts.request, which holds all tries: make it at most as long"},
]))]
pub(crate) struct BackendPolicySpec {
    /// The Services that it is for, in its own namespace. Of several policies
    /// for one Service the oldest holds.
    #[schemars(length(min = 1, max = 16))]
    pub(crate) target_refs: Vec<ServiceTarget>,
    #[serde(default)]
    pub(crate) load_balancing: Option<LoadBalancing>,
    #[serde(default)]
    pub(crate) circuit_breaking: Option<CircuitBreaking>,
    #[serde(default)]
    pub(crate) limits: Option<Limits>,
    #[serde(default)]
    pub(crate) retries: Option<Retries>,
    #[serde(default)]
    pub(crate) timeouts: Option<Timeouts>,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.kind == 'Service'", "message": "a BackendPolicy is for Services: write kind: Service"},
    {"rule": "!has(self.group) || self.group == ''", "message": "a Service is of the core group: leave group out"},
]))]
pub(crate) struct ServiceTarget {
    /// `""`, the core group.
    #[serde(default)]
    pub(crate) group: String,
    /// `Service`.
    pub(crate) kind: String,
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LoadBalancing {
    /// Default `PeakEwma`.
    pub(crate) algorithm: Algorithm,
}

#[derive(Clone, Copy, PartialEq, Debug, Deserialize, JsonSchema)]
pub(crate) enum Algorithm {
    /// The better of two random endpoints, by recent latency and requests in flight.
    PeakEwma,
    /// Each in its turn.
    RoundRobin,
    /// By the pods' annotation `weft.dev/weight`.
    Weighted,
}

/// Takes an endpoint that fails out of the balance, for a time.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.maxEjection) || duration(self.maxEjection) >= duration(has(self.baseEjection) ? self.baseEjection : '5s')", "message": "maxEjection is shorter than baseEjection (5s unless said): make it at least as long"},
]))]
pub(crate) struct CircuitBreaking {
    /// So many failures in a row eject an endpoint; 0 ejects none. Default 5, at most 10,000.
    #[schemars(range(min = 0, max = 10000))]
    pub(crate) consecutive_failures: Option<i64>,
    /// The first time; each further one is longer. Default 5s, 1ms to 1h.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub(crate) base_ejection: Option<String>,
    /// No time is longer. Default 5m, `baseEjection` to 24h.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub(crate) max_ejection: Option<String>,
    /// Never more of the Service's endpoints at once, and never the last one.
    /// Default 50, 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) max_ejected_percent: Option<i64>,
}

/// What one proxy asks of the Service at once, over all endpoints.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.requests) || (!has(self.pending) && !has(self.pendingTimeout))", "message": "without requests nobody waits: limit requests, or leave pending and pendingTimeout out"},
]))]
pub(crate) struct Limits {
    /// Open connections; what needs one more is refused. Default: no limit; 1 to 1,000,000.
    #[schemars(range(min = 1, max = 1000000))]
    pub(crate) connections: Option<i64>,
    /// Requests in flight. Default: no limit; 1 to 1,000,000.
    #[schemars(range(min = 1, max = 1000000))]
    pub(crate) requests: Option<i64>,
    /// Requests that wait because of `requests`. Default: no limit; 1 to 1,000,000.
    #[schemars(range(min = 1, max = 1000000))]
    pub(crate) pending: Option<i64>,
    /// How long they wait. Default 1s, 1ms to 1h.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub(crate) pending_timeout: Option<String>,
}

/// Tries again what failed. Connections refused and requests never sent are
/// tried again without a policy.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Retries {
    /// Beyond the first try. 1 to 10.
    #[schemars(range(min = 1, max = 10))]
    pub(crate) attempts: i64,
    // Not `on`: `kubectl` reads that as a boolean (YAML 1.1).
    /// Which answers.
    pub(crate) retry_on: RetryOn,
    /// Also methods that may do something twice (RFC 9110 §9.2.2). Default false.
    #[serde(default)]
    pub(crate) non_idempotent: bool,
    /// Each try. Default: none; 1ms to 24h.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub(crate) per_try_timeout: Option<String>,
    #[serde(default)]
    pub(crate) backoff: Option<Backoff>,
    #[serde(default)]
    pub(crate) budget: Option<Budget>,
}

/// At least one of them.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(has(self.statusCodes) && size(self.statusCodes) > 0) || (has(self.grpcStatuses) && size(self.grpcStatuses) > 0)", "message": "no answer is named that is to be retried: name statusCodes or grpcStatuses"},
]))]
pub(crate) struct RetryOn {
    /// 400 to 599.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[schemars(inner(range(min = 400, max = 599)))]
    pub(crate) status_codes: Vec<i64>,
    /// By name (`UNAVAILABLE`) or number (14), without `OK`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub(crate) grpc_statuses: Vec<GrpcStatus>,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum GrpcStatus {
    Number(i64),
    Name(String),
}

/// Waits between tries, with jitter, doubling.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.max) || duration(self.max) >= duration(has(self.base) ? self.base : '25ms')", "message": "max is shorter than base (25ms unless said): make it at least as long"},
]))]
pub(crate) struct Backoff {
    /// The first. Default 25ms, 1ms to 1m.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub(crate) base: Option<String>,
    /// The longest. Default 250ms, `base` to 1h.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub(crate) max: Option<String>,
}

/// What all retries to the Service may add to its load.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Budget {
    /// Of the requests of the last ten seconds. Default 20, 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) percent: Option<i64>,
    /// Always allowed. Default 3, 0 to 10,000.
    #[schemars(range(min = 0, max = 10000))]
    pub(crate) minimum_per_second: Option<i64>,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// Until an endpoint accepts. Default 5s, 1ms to 1h.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub(crate) connect: Option<String>,
    /// From the request's end to the answer's beginning. Default: none, up to 24h.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub(crate) first_byte: Option<String>,
    /// Without a byte in either direction. Default: none, up to 24h.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub(crate) idle: Option<String>,
    /// From the request's beginning to the answer's end, all tries. Default: none, up to 24h.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub(crate) request: Option<String>,
}

/// # Errors
/// What the policy says that can't be.
pub(crate) fn convert(it: &BackendPolicy) -> Result<BackendPolicyObject, Refusal> {
    let name = check::name(&it.metadata)?;
    Ok(BackendPolicyObject {
        name,
        uid: check::uid(&it.metadata),
        created_milliseconds: check::created(&it.metadata),
        generation: check::generation(&it.metadata),
        targets: targets(&it.spec.target_refs)?,
        policy: policy(&it.spec).map_err(|refusal| refusal.below("spec"))?,
    })
}

fn targets(refs: &[ServiceTarget]) -> Result<Vec<String>, Refusal> {
    if refs.is_empty() {
        return Err(Refusal::new(
            "spec.targetRefs",
            "is empty",
            "name at least one Service",
        ));
    }
    let mut targets: Vec<String> = Vec::new();
    for (index, target) in refs.iter().enumerate() {
        let field = format!("spec.targetRefs[{index}]");
        if !target.group.is_empty() {
            let is = check::quoted(&target.group);
            return Err(Refusal::value(&format!("{field}.group"), is, r#""""#));
        }
        if target.kind != "Service" {
            let is = check::quoted(&target.kind);
            return Err(Refusal::value(&format!("{field}.kind"), is, "Service"));
        }
        check::label(&format!("{field}.name"), &target.name)?;
        if !targets.contains(&target.name) {
            targets.push(target.name.clone());
        }
    }
    Ok(targets)
}

fn policy(spec: &BackendPolicySpec) -> Result<model::BackendPolicy, Refusal> {
    let mut policy = model::BackendPolicy::default();
    if let Some(it) = &spec.load_balancing {
        policy.load_balancing = match it.algorithm {
            Algorithm::PeakEwma => model::LoadBalancing::PeakEwma,
            Algorithm::RoundRobin => model::LoadBalancing::RoundRobin,
            Algorithm::Weighted => model::LoadBalancing::Weighted,
        };
    }
    if let Some(it) = &spec.circuit_breaking {
        circuit_breaking(it, &mut policy).map_err(|refusal| refusal.below("circuitBreaking"))?;
    }
    if let Some(it) = &spec.limits {
        limits(it, &mut policy).map_err(|refusal| refusal.below("limits"))?;
    }
    if let Some(it) = &spec.timeouts {
        timeouts(it, &mut policy).map_err(|refusal| refusal.below("timeouts"))?;
    }
    if let Some(it) = &spec.retries {
        retries(it, &mut policy).map_err(|refusal| refusal.below("retries"))?;
    }
    Ok(policy)
}
