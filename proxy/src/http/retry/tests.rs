//! The decision table, row by row, and what holds for any row.

use proptest::prelude::*;

use super::*;
use crate::discovery::BackendPolicy;

fn policy() -> Retries {
    Retries {
        attempts: 2,
        status_codes: vec![502, 503],
        grpc_statuses: vec![14],
        ..BackendPolicy::default().retries
    }
}

fn sent(failure: Failure) -> Attempt {
    Attempt {
        failure,
        sent: true,
        response_started: false,
    }
}

fn situation() -> Situation<'static> {
    Situation {
        method: "GET",
        replayable: true,
        incoming_attempt: 1,
        retries: 0,
        replayed: false,
        other_endpoint: true,
        remaining: None,
    }
}

/// The decision in words, and how often the budget was asked.
fn decided(
    attempt: &Attempt,
    situation: &Situation<'_>,
    policy: &Retries,
    has_budget: bool,
) -> (String, u32) {
    let mut asked = 0;
    let decision = decide(
        attempt,
        situation,
        policy,
        &mut fastrand::Rng::with_seed(1),
        || {
            asked += 1;
            has_budget
        },
    );
    let words = match decision {
        Decision::Again {
            on: On::OtherEndpoint,
            kind,
            ..
        } => format!("{} elsewhere", text(kind)),
        Decision::Again {
            on: On::Same, kind, ..
        } => format!("{} here", text(kind)),
        Decision::Stop(reason) => reason.as_str().to_owned(),
    };
    (words, asked)
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn each_failure_has_its_row() {
    use Failure::{Fault, GrpcStatus, ReusedConnectionDied, Status};
    let reset = Fault(Reason::UpstreamReset);
    let base = situation();
    let post = Situation {
        method: "POST",
        ..base
    };
    let no_body = Situation {
        replayable: false,
        ..base
    };
    let alone = Situation {
        other_endpoint: false,
        ..base
    };
    let alone_post = Situation {
        method: "POST",
        ..alone
    };
    let alone_spent = Situation {
        retries: 2,
        ..alone
    };
    let over = Situation {
        remaining: Some(Duration::ZERO),
        ..base
    };
    let again = Situation {
        replayed: true,
        ..base
    };
    let spent = Situation { retries: 2, ..base };
    let relayed = Situation {
        incoming_attempt: 2,
        ..base
    };
    let post_again = Situation {
        replayed: true,
        ..post
    };
    let post_no_body = Situation {
        replayable: false,
        ..post
    };
    for (failure, situation, expected) in [
        // Nothing was sent, or the peer did not take it: whatever the method, outside the budget.
        (Fault(Reason::ConnectRefused), base, ("unsent elsewhere", 0)),
        (Fault(Reason::ConnectRefused), post, ("unsent elsewhere", 0)),
        (
            Fault(Reason::ConnectTimeout),
            spent,
            ("unsent elsewhere", 0),
        ),
        (
            Fault(Reason::TlsHandshake),
            relayed,
            ("unsent elsewhere", 0),
        ),
        (Fault(Reason::StreamRefused), post, ("unsent elsewhere", 0)),
        (Fault(Reason::ShuttingDown), post, ("unsent elsewhere", 0)),
        (Fault(Reason::ConnectRefused), alone, ("policy here", 1)),
        (
            Fault(Reason::ConnectRefused),
            alone_post,
            ("policy here", 1),
        ),
        (
            Fault(Reason::ConnectRefused),
            alone_spent,
            ("attempts-spent", 0),
        ),
        (Fault(Reason::ConnectRefused), over, ("deadline", 0)),
        (Fault(Reason::StreamRefused), no_body, ("body-too-large", 0)),
        // A reused connection died.
        (ReusedConnectionDied, base, ("replay here", 0)),
        (ReusedConnectionDied, alone, ("replay here", 0)),
        (ReusedConnectionDied, relayed, ("replay here", 0)),
        (ReusedConnectionDied, over, ("deadline", 0)),
        (ReusedConnectionDied, post, ("not-idempotent", 0)),
        (ReusedConnectionDied, no_body, ("body-too-large", 0)),
        (ReusedConnectionDied, again, ("policy elsewhere", 1)),
        (ReusedConnectionDied, post_again, ("not-idempotent", 0)),
        // The policy's.
        (reset, base, ("policy elsewhere", 1)),
        (reset, alone, ("policy here", 1)),
        (reset, post, ("not-idempotent", 0)),
        (reset, no_body, ("body-too-large", 0)),
        (reset, post_no_body, ("not-idempotent", 0)),
        (reset, spent, ("attempts-spent", 0)),
        (reset, over, ("deadline", 0)),
        (reset, relayed, ("is-retry", 0)),
        (
            Fault(Reason::FirstByteTimeout),
            base,
            ("policy elsewhere", 1),
        ),
        (
            Fault(Reason::MalformedResponse),
            base,
            ("policy elsewhere", 1),
        ),
        (Status(503), base, ("policy elsewhere", 1)),
        (Status(503), post, ("not-idempotent", 0)),
        (Status(503), relayed, ("is-retry", 0)),
        (Status(500), base, ("not-retryable", 0)),
        (Status(404), base, ("not-retryable", 0)),
        (GrpcStatus(14), post, ("policy elsewhere", 1)),
        (GrpcStatus(14), post_no_body, ("body-too-large", 0)),
        (GrpcStatus(14), relayed, ("is-retry", 0)),
        (GrpcStatus(13), post, ("not-retryable", 0)),
        // Never.
        (Fault(Reason::RequestTimeout), base, ("not-retryable", 0)),
        (Fault(Reason::AccessDenied), base, ("not-retryable", 0)),
        (Fault(Reason::ResponseTruncated), base, ("not-retryable", 0)),
        (Fault(Reason::TooManyRequests), base, ("not-retryable", 0)),
    ] {
        let (words, asked) = decided(&sent(failure), &situation, &policy(), true);
        assert_eq!(
            (words.as_str(), asked),
            expected,
            "{failure:?} {situation:?}"
        );
    }
}

#[test]
fn without_a_policy_only_what_was_not_taken_is_made_again() {
    let none = BackendPolicy::default().retries;
    for failure in [
        Failure::Fault(Reason::UpstreamReset),
        Failure::Status(503),
        Failure::GrpcStatus(14),
    ] {
        assert_eq!(
            decided(&sent(failure), &situation(), &none, true).0,
            "not-retryable"
        );
    }
    assert_eq!(
        decided(
            &sent(Failure::Fault(Reason::ConnectRefused)),
            &situation(),
            &none,
            false
        )
        .0,
        "unsent elsewhere"
    );
    assert_eq!(
        decided(
            &sent(Failure::ReusedConnectionDied),
            &situation(),
            &none,
            false
        )
        .0,
        "replay here"
    );
    let alone = Situation {
        other_endpoint: false,
        ..situation()
    };
    assert_eq!(
        decided(
            &sent(Failure::Fault(Reason::ConnectRefused)),
            &alone,
            &none,
            true
        )
        .0,
        "no-other-endpoint"
    );
}

#[test]
fn a_policy_may_ask_for_methods_that_are_not_idempotent() {
    let policy = Retries {
        non_idempotent: true,
        ..policy()
    };
    let post = Situation {
        method: "POST",
        ..situation()
    };
    assert_eq!(
        decided(&sent(Failure::Status(503)), &post, &policy, true).0,
        "policy elsewhere"
    );
    assert_eq!(
        decided(&sent(Failure::ReusedConnectionDied), &post, &policy, true).0,
        "policy elsewhere"
    );
}

#[test]
fn an_unsent_post_on_a_dead_connection_is_replayed_even_with_a_streaming_body() {
    let attempt = Attempt {
        sent: false,
        ..sent(Failure::ReusedConnectionDied)
    };
    let post = Situation {
        method: "POST",
        replayable: false,
        ..situation()
    };
    assert_eq!(decided(&attempt, &post, &policy(), true).0, "replay here");
}

#[test]
fn retries_stop_when_the_budget_is_spent() {
    assert_eq!(
        decided(&sent(Failure::Status(503)), &situation(), &policy(), false),
        ("budget-spent".into(), 1)
    );
}

#[test]
fn methods_are_idempotent_by_name_and_case() {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        assert!(is_idempotent(method));
    }
    for method in ["POST", "PATCH", "CONNECT", "get", "PURGE", ""] {
        assert!(!is_idempotent(method));
    }
}

#[test]
fn backoff_doubles_under_a_cap_with_full_jitter() {
    let policy = Retries {
        attempts: 99,
        ..policy()
    };
    let mut random = fastrand::Rng::with_seed(7);
    for (retries, most) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (40, 250)] {
        let waits: Vec<_> = (0..500)
            .map(|_| backoff(&policy, retries, &mut random))
            .collect();
        let most = Duration::from_millis(most);
        assert!(waits.iter().all(|wait| *wait <= most));
        assert!(
            waits.iter().any(|wait| *wait > most.mul_f64(0.9))
                && waits.iter().any(|wait| *wait < most.mul_f64(0.1))
        );
    }
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let failure = prop_oneof![
        prop::sample::select(Reason::ALL).prop_map(Failure::Fault),
        Just(Failure::ReusedConnectionDied),
        (400_u16..600).prop_map(Failure::Status),
        (0_u8..17).prop_map(Failure::GrpcStatus),
    ];
    (failure, any::<bool>(), any::<bool>()).prop_map(|(failure, sent, response_started)| Attempt {
        failure,
        sent,
        response_started,
    })
}

fn any_situation() -> impl Strategy<Value = Situation<'static>> {
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "PATCH"]);
    let remaining = prop::option::of((0_u64..400).prop_map(Duration::from_millis));
    (
        method,
        any::<bool>(),
        1_u32..3,
        0_u32..4,
        any::<bool>(),
        any::<bool>(),
        remaining,
    )
        .prop_map(
            |(
                method,
                replayable,
                incoming_attempt,
                retries,
                replayed,
                other_endpoint,
                remaining,
            )| Situation {
                method,
                replayable,
                incoming_attempt,
                retries,
                replayed,
                other_endpoint,
                remaining,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_made_again_is_safe_and_in_time(attempt in any_attempt(), situation in any_situation(), seed in any::<u64>(), has_budget in any::<bool>()) {
        let mut asked = 0;
        let decision = decide(&attempt, &situation, &policy(), &mut fastrand::Rng::with_seed(seed), || { asked += 1; has_budget });
        prop_assert!(asked <= 1);
        let Decision::Again { on, backoff, kind } = decision else { return Ok(()) };
        prop_assert!(!attempt.response_started);
        prop_assert!(!attempt.sent || situation.replayable);
        prop_assert!(situation.remaining.is_none_or(|remaining| backoff < remaining));
        prop_assert!(on == On::Same || situation.other_endpoint);
        prop_assert_eq!(asked, u32::from(kind == Retried::Policy));
        if kind == Retried::Policy {
            prop_assert!(has_budget && situation.retries < 2 && situation.incoming_attempt == 1);
            prop_assert!(is_idempotent(situation.method) || is_harmless(attempt.failure));
        }
    }
}

fn text(kind: Retried) -> &'static str {
    Retried::TEXTS[kind as usize]
}

/// HTTPRouteRetry.backoff: a request is not "retried before the configured
/// minimum duration".
#[test]
fn the_least_wait_is_waited_whatever_the_draw() {
    let policy = Retries {
        least_backoff: Duration::from_millis(100),
        ..policy()
    };
    let (least, most) = (
        policy.least_backoff,
        policy.least_backoff + policy.max_backoff,
    );
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let failed = sent(Failure::Status(503));
        match decide(&failed, &situation(), &policy, &mut random, || true) {
            Decision::Again { backoff, .. } => assert!((least..=most).contains(&backoff)),
            Decision::Stop(why) => panic!("{}", why.as_str()),
        }
    }
}
