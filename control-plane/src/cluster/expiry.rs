//! Warns of an authority that is about to end: 30, 7 and 1 days before.
//!
//! The metric says it all along; these are for those who look at events.

use std::time::Duration;

use crate::cluster::warning::Warnings;

const DAY: Duration = Duration::from_secs(86_400);
/// Days left, and the event's reason: each of its own, so that each is seen.
const STAGES: [(u32, &str); 3] = [
    (1, "AuthorityEndsInADay"),
    (7, "AuthorityEndsInAWeek"),
    (30, "AuthorityEndsInAMonth"),
];

/// The stage that has been reached, by its days; 0: it has ended.
fn stage(left: Duration) -> Option<(u32, &'static str)> {
    if left.is_zero() {
        return Some((0, "AuthorityHasEnded"));
    }
    STAGES.into_iter().find(|(days, _)| left <= *days * DAY)
}

/// Once per stage and authority; `warned` remembers which.
pub(crate) async fn warn(
    ends: Duration,
    now: Duration,
    warned: &mut Option<(Duration, u32)>,
    warnings: &Warnings,
) {
    let Some((days, reason)) = stage(ends.saturating_sub(now)) else {
        return;
    };
    if *warned == Some((ends, days)) {
        return;
    }
    let left = ends.saturating_sub(now).as_secs() / 3600;
    tracing::warn!(hours = left, "what signs certificates is about to end");
    let note = format!(
        "what signs the mesh's certificates ends in {left} hours: `weft ca rotate`, or give another where the Secret is yours"
    );
    warnings.warn(reason, &note).await;
    *warned = Some((ends, days));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fake::Fake;

    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/weft-system/events";

    #[tokio::test]
    async fn each_stage_is_warned_of_once() {
        let fake = Fake::default();
        let warnings = Warnings::about_secret(&fake.cluster(), "weft-ca");
        let (ends, mut warned) = (1000 * DAY, None);
        let mut reasons = Vec::new();
        for left in [
            31 * DAY,
            30 * DAY,
            29 * DAY,
            7 * DAY,
            2 * DAY,
            DAY,
            DAY / 2,
            Duration::ZERO,
        ] {
            let before = fake.count(EVENTS);
            warn(ends, ends - left, &mut warned, &warnings).await;
            if fake.count(EVENTS) > before {
                reasons.push(fake.last(EVENTS)["reason"].as_str().unwrap().to_owned());
            }
        }
        let expected = [
            "AuthorityEndsInAMonth",
            "AuthorityEndsInAWeek",
            "AuthorityEndsInADay",
            "AuthorityHasEnded",
        ];
        assert_eq!(reasons, expected);
        assert_eq!(fake.last(EVENTS)["regarding"]["name"], "weft-ca");
        // Another authority that ends as soon is told of again.
        warn(ends + DAY, ends, &mut warned, &warnings).await;
        assert_eq!(warned, Some((ends + DAY, 1)));
    }
}
