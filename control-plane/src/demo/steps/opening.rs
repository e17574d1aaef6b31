//! The whole shop: every service answers, each through its own sidecar.

use std::time::Duration;

use tokio::time::Instant;

use super::load;
use crate::demo::{board::Board, finding::Finding, shop::Shop, summary::round};

/// For every sidecar to be connected and up to date.
const LIMIT: Duration = Duration::from_secs(30);

const PODS: [&str; 7] = [
    "front-0",
    "catalog-v1-0",
    "catalog-v2-0",
    "stock-0",
    "stock-1",
    "stock-2",
    "payment-0",
];

/// Everything but cart and store, which `traffic` opens twice.
pub(crate) fn start(shop: &mut Shop) -> anyhow::Result<()> {
    shop.start(&PODS, &[])?;
    shop.start_guest()
}

pub(crate) async fn show(shop: &mut Shop, board: &Board) -> anyhow::Result<Finding> {
    let began = Instant::now();
    let programs = shop.programs();
    for (service, what) in &programs {
        board.say(&format!("{service}: {what}"));
    }
    for (target, ..) in load::everything() {
        shop.until_open(target).await?;
    }
    let pods = shop.pods();
    let names: Vec<String> = pods.iter().map(|pod| format!("shop/{pod}")).collect();
    let report = shop
        .until(LIMIT, |report| {
            names
                .iter()
                .all(|name| report.proxies.iter().any(|it| it.pod == *name))
        })
        .await?;

    let mut finding = Finding::default();
    finding.measure("pods", pods.len());
    finding.measure("sidecars", report.proxies.len());
    finding.measure("seconds_waited", round(began.elapsed()));
    finding.check(report.problems.is_empty(), || {
        let problem = report
            .problems
            .first()
            .map(|it| format!("{}: {}", it.object, it.message));
        format!(
            "the control plane objects to a manifest: {}",
            problem.unwrap_or_default()
        )
    });
    let real: Vec<&str> = ["front", "store"]
        .iter()
        .filter_map(|it| programs.get(it).map(String::as_str))
        .collect();
    finding.told = format!(
        "{} services in {} pods answer; {}, and four of our own",
        programs.len(),
        pods.len(),
        real.join(", ")
    );
    Ok(finding)
}
