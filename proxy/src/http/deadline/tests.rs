//! The shortest time wins, and none is hidden.

use std::sync::Arc;

use super::*;
use crate::{
    discovery::{Retries, RuleCells, Schedule, Timeouts},
    request::samples::Sample,
};

const fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

fn policy(
    request: Option<Duration>,
    per_try: Option<Duration>,
    first_byte: Option<Duration>,
) -> BackendPolicy {
    let defaults = BackendPolicy::default();
    BackendPolicy {
        timeouts: Timeouts {
            request,
            first_byte,
            ..defaults.timeouts
        },
        retries: Retries {
            per_try_timeout: per_try,
            ..defaults.retries
        },
        ..defaults
    }
}

fn rule(request_timeout: Option<Duration>, backend_timeout: Option<Duration>) -> Rule {
    Rule {
        route: "shop/r".into(),
        index: 0,
        backends: Vec::new(),
        schedule: Schedule::default(),
        request_timeout,
        backend_timeout,
        cells: Arc::new(RuleCells::default()),
    }
}

fn grpc(timeout: &str) -> Sample {
    Sample::get("/p.S/M")
        .with("content-type", "application/grpc+proto")
        .with("grpc-timeout", timeout)
}

#[tokio::test(start_paused = true)]
async fn without_times_a_request_may_take_for_ever() {
    let now = Instant::now();
    let deadline = Deadline::new(None, &BackendPolicy::default(), &Sample::get("/"), now);
    assert_eq!(deadline.total(), None);
    assert_eq!(deadline.remaining(now), None);
    assert_eq!(deadline.of_try(now), None);
    assert_eq!(deadline.of_first_byte(now), None);
}

#[tokio::test(start_paused = true)]
async fn the_shortest_total_wins() {
    let now = Instant::now();
    for (of_route, of_policy, of_caller, expected) in [
        (seconds(3), seconds(5), "9S", seconds(3)),
        (seconds(7), seconds(5), "9S", seconds(5)),
        (
            seconds(7),
            seconds(5),
            "1500m",
            Some(Duration::from_millis(1500)),
        ),
        (None, None, "2M", seconds(120)),
        (None, seconds(5), "bad", seconds(5)),
        (None, None, "0S", seconds(0)),
    ] {
        let rule = rule(of_route, None);
        let deadline = Deadline::new(
            Some(&rule),
            &policy(of_policy, None, None),
            &grpc(of_caller),
            now,
        );
        assert_eq!(deadline.remaining(now), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_never_outlasts_the_whole() {
    let now = Instant::now();
    let rule = rule(seconds(10), seconds(4));
    let deadline = Deadline::new(
        Some(&rule),
        &policy(None, seconds(6), seconds(2)),
        &Sample::get("/"),
        now,
    );
    let at = |seconds: u64| now + Duration::from_secs(seconds);
    assert_eq!(deadline.of_try(now), Some(at(4)));
    assert_eq!(deadline.of_try(at(8)), Some(at(10)));
    assert_eq!(deadline.of_first_byte(at(1)), Some(at(3)));
    assert_eq!(deadline.of_first_byte(at(9)), Some(at(10)));
    // Each end has its own name, also where they fall together.
    assert_eq!(deadline.over(at(5)), Reason::FirstByteTimeout);
    assert_eq!(deadline.over(at(6)), Reason::FirstByteTimeout);
    assert_eq!(deadline.over(at(10)), Reason::RequestTimeout);
    assert_eq!(deadline.remaining(at(9)), seconds(1));
    assert_eq!(deadline.remaining(at(11)), seconds(0));
}

#[tokio::test(start_paused = true)]
async fn the_header_means_nothing_outside_grpc() {
    let now = Instant::now();
    for (content_type, is_grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;x=1", true),
        ("application/grpc-web", false),
        ("application/json", false),
    ] {
        let request = Sample::get("/")
            .with("content-type", content_type)
            .with("grpc-timeout", "1S");
        let deadline = Deadline::new(None, &BackendPolicy::default(), &request, now);
        assert_eq!(deadline.total().is_some(), is_grpc, "{content_type}");
    }
}

#[test]
fn grpc_timeouts_have_a_unit_and_at_most_eight_digits() {
    for (text, expected) in [
        ("1H", seconds(3600)),
        ("2M", seconds(120)),
        ("3S", seconds(3)),
        ("4m", Some(Duration::from_millis(4))),
        ("5u", Some(Duration::from_micros(5))),
        ("6n", Some(Duration::from_nanos(6))),
        ("99999999H", seconds(99_999_999 * 3600)),
        ("00000001S", seconds(1)),
        ("", None),
        ("S", None),
        ("1", None),
        ("1s", None),
        ("1h", None),
        ("+1S", None),
        ("-1S", None),
        ("1.5S", None),
        ("1 S", None),
        ("100000000S", None),
        ("1SS", None),
    ] {
        assert_eq!(parse_grpc_timeout(text.as_bytes()), expected, "{text:?}");
    }
}
