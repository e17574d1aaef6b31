//! Retries: a bank that refuses every tenth charge, and customers who don't
//! notice. What that costs the bank is measured, too.

use anyhow::Context;
use tokio::time::{Instant, timeout};

use super::{EDIT_LIMIT, sight};
use crate::demo::{
    board::Board,
    finding::Finding,
    job::Target,
    shop::{PAYMENT, Shop},
};

const CALLS: u64 = 300;
/// What a budget of a fifth allows.
const MOST: f64 = 1.2;
const ATTEMPTS: &str = "weft_traffic_attempts_total";
const REQUESTS: &str = "weft_traffic_grpc_total";
const LABELS: [&str; 2] = ["side=\"outbound\"", "payment"];

pub(crate) async fn show(shop: &mut Shop, board: &Board) -> anyhow::Result<Finding> {
    let before = shop.shopper()?.calls(charge(), 100, 1).await?;
    board.say(&format!(
        "without a policy {} of 100 charges fail; a policy is written",
        before.failures()
    ));
    let written = Instant::now();
    shop.apply(PAYMENT)?;
    timeout(EDIT_LIMIT * 5, until_hidden(shop))
        .await
        .context("the policy did not take effect")??;
    let took = written.elapsed();
    let requests = sight::settled(shop, REQUESTS, &LABELS).await?;
    let attempts = sight::metric(shop, ATTEMPTS, &LABELS).await?;
    let after = shop.shopper()?.calls(charge(), CALLS, 2).await?;
    let requests = sight::settled(shop, REQUESTS, &LABELS).await? - requests;
    let attempts = sight::metric(shop, ATTEMPTS, &LABELS).await? - attempts;
    let amplification = attempts as f64 / requests.max(1) as f64;

    let mut finding = Finding::default();
    finding.measure("failures_of_100_without", before.failures());
    finding.measure("calls", CALLS);
    finding.measure("failures_with", after.failures());
    finding.measure("attempts", attempts);
    finding.measure("amplification", (amplification * 1000.0).round() / 1000.0);
    finding.measure("policy_in_effect_milliseconds", took.as_secs_f64() * 1000.0);
    finding.check(before.failures() == 10, || {
        format!("without a policy {} of 100 calls failed", before.failures())
    });
    finding.check(after.failures() == 0, || {
        format!("with retries {}", after.failed_of())
    });
    finding.check(requests == CALLS, || {
        format!("the proxy counted {requests} calls of {CALLS}")
    });
    finding.check(amplification > 1.1 && amplification < MOST, || {
        format!("{CALLS} calls became {attempts} attempts")
    });
    finding.check(took < EDIT_LIMIT, || format!("the policy took {took:?}"));
    finding.told = format!(
        "{} of 100 charges failed without; with retries {} of {CALLS}, which became {attempts} attempts (x{amplification:.2})",
        before.failures(),
        after.failures(),
    );
    Ok(finding)
}

fn charge() -> Target {
    Target::Charge("http://payment.shop:9090".to_owned())
}

/// Of ten charges in a row one is refused.
async fn until_hidden(shop: &mut Shop) -> anyhow::Result<()> {
    while shop.shopper()?.calls(charge(), 10, 1).await?.failures() > 0 {}
    Ok(())
}
