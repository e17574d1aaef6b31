//! Every proxy renews its certificate under load, well before the old one ends,
//! and the load goes on until every old one has ended.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep_until};

use super::{load::Load, sight};
use crate::demo::{
    board::Board,
    finding::Finding,
    shop::{CERTIFICATE_LIFETIME, Shop},
    summary::round,
};

const RENEWALS: &str = "weft_control_renewals_total";
/// Certificates end on a whole second.
const SURELY: Duration = Duration::from_secs(1);

pub(crate) async fn show(shop: &mut Shop, board: &Board) -> anyhow::Result<Finding> {
    let load = Load::start(shop).await?;
    let pods: Vec<String> = shop
        .pods()
        .iter()
        .map(|pod| format!("shop/{pod}"))
        .collect();
    let renewals = sight::metric(shop, RENEWALS, &[]).await?;
    let began = Instant::now();
    board.say(&format!(
        "certificates live {} s; waiting until all {} are new",
        CERTIFICATE_LIFETIME.as_secs(),
        pods.len()
    ));
    let report = shop
        .until(CERTIFICATE_LIFETIME, |report| {
            // Whole seconds: only what is surely younger than the step.
            let age = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
            let is_new = |pod: &String| {
                let mut certificates = report.certificates.iter();
                certificates.any(|it| it.pod == *pod && it.age_seconds < age)
            };
            pods.iter().all(is_new)
        })
        .await
        .context("not every certificate was renewed")?;
    let took = began.elapsed();
    board.say(&format!(
        "all are new after {:.1} s; waiting until every old one has ended",
        took.as_secs_f64()
    ));
    // With them end the mesh connections that were made with them.
    sleep_until(began + CERTIFICATE_LIFETIME + SURELY).await;
    let renewed = sight::metric(shop, RENEWALS, &[]).await? - renewals;
    let sum = load.stop(shop).await?;
    let shortest = report
        .certificates
        .iter()
        .map(|it| it.expires_seconds)
        .min();

    let mut finding = Finding::default();
    finding.measure("certificates", pods.len());
    finding.measure("all_renewed_seconds", round(took));
    finding.measure("shortest_left_seconds", shortest.unwrap_or_default());
    finding.measure("renewals_of_shopper", renewed);
    finding.measure("calls", sum.calls());
    finding.measure("failures", sum.failures());
    finding.measure("slowest_milliseconds", sum.slowest_milliseconds);
    finding.check(sum.failures() == 0, || {
        format!("calls failed: {}", sum.failed_of())
    });
    finding.check(renewed > 0, || {
        "the shopper's proxy counted no renewal".to_owned()
    });
    finding.told = format!(
        "{} certificates renewed in {:.1} s, every old one ended: {} calls, {} failed",
        pods.len(),
        took.as_secs_f64(),
        sum.calls(),
        sum.failures()
    );
    Ok(finding)
}
