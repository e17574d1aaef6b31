//! Circuit breaking: a pod that answers 503 is ejected after exactly as many
//! failures as the policy says, and taken back once it answers again.

use std::{fs, time::Duration};

use anyhow::Context;
use tokio::time::{Instant, timeout};

use super::sight;
use crate::demo::{
    board::Board,
    finding::Finding,
    job::{Report, Target},
    shop::Shop,
};

const BROKEN: &str = "stock-1";
/// Few enough to be over before the ejection is, on a busy machine, too.
const CALLS: u64 = 30;
/// As manifests/stock.yaml says.
const FAILURES: u64 = 3;
/// The ejection of three seconds, and what a busy machine needs.
const BACK: Duration = Duration::from_secs(10);

pub(crate) async fn show(shop: &mut Shop, board: &Board) -> anyhow::Result<Finding> {
    let healthy = shop.shopper()?.calls(stock(), CALLS, 1).await?;
    board.say(&format!("{BROKEN} begins to fail"));
    fs::write(shop.fault(BROKEN), "")?;
    let failing = shop.shopper()?.calls(stock(), CALLS, 1).await?;
    let ejected = Instant::now();
    let state = sight::breaker(shop, BROKEN).await?.unwrap_or_default();
    board.say(&format!(
        "{} failures, then none: {BROKEN} is {state}; it is mended",
        failing.failures()
    ));
    fs::remove_file(shop.fault(BROKEN))?;
    let back = timeout(BACK, until_back(shop))
        .await
        .with_context(|| format!("{BROKEN} was not taken back"))??;
    let away = ejected.elapsed();
    let after = sight::breaker(shop, BROKEN).await?.unwrap_or_default();

    let mut finding = Finding::default();
    finding.measure("failures_seen", failing.failures());
    finding.measure("failures_allowed", FAILURES);
    finding.measure("state_while_failing", state.as_str());
    finding.measure("state_after", after.as_str());
    finding.measure("ejected_seconds", away.as_secs_f64());
    finding.measure("failures_on_return", back.failures());
    if let Some(line) = shop.proxy_said("shopper-0", &["breaker", BROKEN]) {
        finding.measure("log", line);
    }
    let share = healthy.served_by(BROKEN);
    finding.check(share == CALLS / 3 && healthy.failures() == 0, || {
        format!(
            "{BROKEN} had {share} of {CALLS} calls at first, {} failed",
            healthy.failures()
        )
    });
    finding.check(failing.failures() == FAILURES, || {
        format!("{} calls failed, not {FAILURES}", failing.failures())
    });
    finding.check(state == "ejected", || {
        format!("{BROKEN} was {state:?}, not ejected")
    });
    finding.check(after == "in", || {
        format!("{BROKEN} is {after:?} after its return")
    });
    finding.check(back.failures() == 0, || {
        format!("on its return {}", back.failed_of())
    });
    finding.told = format!(
        "{} of {CALLS} calls failed, then {BROKEN} was {state} and no more did; back after {:.1} s",
        failing.failures(),
        away.as_secs_f64()
    );
    Ok(finding)
}

fn stock() -> Target {
    Target::Get("http://stock.shop/".to_owned())
}

/// Calls until the pod answers again.
async fn until_back(shop: &mut Shop) -> anyhow::Result<Report> {
    loop {
        let report = shop.shopper()?.calls(stock(), 6, 1).await?;
        if report.served_by(BROKEN) > 0 || report.failures() > 0 {
            return Ok(report);
        }
    }
}
