//! The parts of a BackendPolicy's specification, checked into the model's.
//!
//! Ranges are those that the fields' comments name. What is left out keeps its
//! default.

use super::{
    Backoff, Budget, CircuitBreaking, GrpcStatus, Limits, Refusal, Retries, Timeouts, check, model,
};

pub(super) fn circuit_breaking(
    it: &CircuitBreaking,
    policy: &mut model::BackendPolicy,
) -> Result<(), Refusal> {
    number(
        "consecutiveFailures",
        it.consecutive_failures,
        0,
        10_000,
        &mut policy.consecutive_failures,
    )?;
    number(
        "maxEjectedPercent",
        it.max_ejected_percent,
        0,
        100,
        &mut policy.max_ejected_percent,
    )?;
    span(
        "baseEjection",
        it.base_ejection.as_deref(),
        1,
        &mut policy.base_ejection,
    )?;
    span(
        "maxEjection",
        it.max_ejection.as_deref(),
        24,
        &mut policy.max_ejection,
    )?;
    let said = it.max_ejection.is_some();
    at_least(
        ("maxEjection", &mut policy.max_ejection, said),
        ("baseEjection", policy.base_ejection),
    )
}

pub(super) fn limits(it: &Limits, policy: &mut model::BackendPolicy) -> Result<(), Refusal> {
    number(
        "connections",
        it.connections,
        1,
        1_000_000,
        &mut policy.connections,
    )?;
    number("requests", it.requests, 1, 1_000_000, &mut policy.requests)?;
    number("pending", it.pending, 1, 1_000_000, &mut policy.pending)?;
    span(
        "pendingTimeout",
        it.pending_timeout.as_deref(),
        1,
        &mut policy.pending_timeout,
    )?;
    if it.requests.is_none() && it.connections.is_none() {
        let field = match (it.pending.is_some(), it.pending_timeout.is_some()) {
            (true, _) => "pending",
            (false, true) => "pendingTimeout",
            (false, false) => return Ok(()),
        };
        let message = "limits nothing: without a limit on requests or connections nobody waits";
        return Err(Refusal::new(
            field,
            message,
            "limit requests or connections, or leave it out",
        ));
    }
    Ok(())
}

pub(super) fn timeouts(it: &Timeouts, policy: &mut model::BackendPolicy) -> Result<(), Refusal> {
    span(
        "connect",
        it.connect.as_deref(),
        1,
        &mut policy.connect_timeout,
    )?;
    let none_at_0 = |field, text: &Option<String>, place: &mut u64| {
        if let Some(text) = text {
            *place = check::duration(field, text, 24)?;
        }
        Ok(())
    };
    none_at_0("firstByte", &it.first_byte, &mut policy.first_byte_timeout)?;
    none_at_0("idle", &it.idle, &mut policy.idle_timeout)?;
    none_at_0("request", &it.request, &mut policy.request_timeout)
}

pub(super) fn retries(it: &Retries, policy: &mut model::BackendPolicy) -> Result<(), Refusal> {
    number("attempts", Some(it.attempts), 1, 10, &mut policy.attempts)?;
    if it.retry_on.status_codes.is_empty() && it.retry_on.grpc_statuses.is_empty() {
        let remedy = "name statusCodes or grpcStatuses";
        return Err(Refusal::new("retryOn", "names no answer to retry", remedy));
    }
    for (index, code) in it.retry_on.status_codes.iter().enumerate() {
        let field = format!("retryOn.statusCodes[{index}]");
        let code = check::within(&field, *code, 400, 599)?;
        policy.retry_status_codes.extend(u16::try_from(code));
    }
    for (index, status) in it.retry_on.grpc_statuses.iter().enumerate() {
        policy.retry_grpc_statuses.push(grpc_status(index, status)?);
    }
    policy.retry_non_idempotent = it.non_idempotent;
    span(
        "perTryTimeout",
        it.per_try_timeout.as_deref(),
        24,
        &mut policy.per_try_timeout,
    )?;
    if policy.request_timeout > 0 && policy.per_try_timeout > policy.request_timeout {
        let message = "is longer than timeouts.request, which holds all tries";
        return Err(Refusal::new(
            "perTryTimeout",
            message,
            "make it at most as long",
        ));
    }
    if let Some(it) = &it.backoff {
        backoff(it, policy)?;
    }
    it.budget.as_ref().map_or(Ok(()), |it| budget(it, policy))
}

fn backoff(it: &Backoff, policy: &mut model::BackendPolicy) -> Result<(), Refusal> {
    span(
        "backoff.base",
        it.base.as_deref(),
        1,
        &mut policy.base_backoff,
    )?;
    span("backoff.max", it.max.as_deref(), 1, &mut policy.max_backoff)?;
    at_least(
        ("backoff.max", &mut policy.max_backoff, it.max.is_some()),
        ("base", policy.base_backoff),
    )
}

fn budget(it: &Budget, policy: &mut model::BackendPolicy) -> Result<(), Refusal> {
    number(
        "budget.percent",
        it.percent,
        0,
        100,
        &mut policy.budget_percent,
    )?;
    number(
        "budget.minimumPerSecond",
        it.minimum_per_second,
        0,
        10_000,
        &mut policy.budget_minimum_per_second,
    )
}

const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn grpc_status(index: usize, status: &GrpcStatus) -> Result<u8, Refusal> {
    let number = match status {
        GrpcStatus::Number(number) => u8::try_from(*number).ok(),
        GrpcStatus::Name(name) => (0..)
            .zip(GRPC_STATUSES)
            .find(|(_, it)| it == name)
            .map(|(it, _)| it),
    };
    number.filter(|it| (1..=16).contains(it)).ok_or_else(|| {
        let is = match status {
            GrpcStatus::Number(number) => number.to_string(),
            GrpcStatus::Name(name) => check::quoted(name),
        };
        let field = format!("retryOn.grpcStatuses[{index}]");
        Refusal::value(
            &field,
            is,
            "a status of gRPC that is an error, like UNAVAILABLE or 14",
        )
    })
}

/// Into `place`, where it is said.
fn number(
    field: &str,
    said: Option<i64>,
    least: u32,
    most: u32,
    place: &mut u32,
) -> Result<(), Refusal> {
    if let Some(number) = said {
        *place = check::within(field, number, least, most)?;
    }
    Ok(())
}

/// Into `place`, where it is said; never none.
fn span(field: &str, said: Option<&str>, most_hours: u64, place: &mut u64) -> Result<(), Refusal> {
    let Some(text) = said else { return Ok(()) };
    *place = check::duration(field, text, most_hours)?;
    match *place {
        0 => Err(Refusal::value(
            field,
            "0",
            "at least 1ms, or leave it out for its default",
        )),
        _ => Ok(()),
    }
}

/// A longest that nobody said follows its base; one that is shorter can't be.
fn at_least(longest: (&str, &mut u64, bool), (base, least): (&str, u64)) -> Result<(), Refusal> {
    let (field, place, said) = longest;
    if said && *place < least {
        let message = format!("is shorter than {base}");
        return Err(Refusal::new(field, message, "make it at least as long"));
    }
    *place = (*place).max(least);
    Ok(())
}
