//! A route's weights, changed by editing its file: shares are exact.
//!
//! Weights are kept by smooth weighted round robin, so of a whole number of
//! rounds each version gets exactly its part.

use anyhow::Context;
use tokio::time::{Instant, timeout};

use super::EDIT_LIMIT;
use crate::demo::{
    board::Board,
    finding::Finding,
    job::{Report, Target},
    shop::Shop,
};

const CALLS: u64 = 200;

pub(crate) fn catalog() -> Target {
    Target::Get("http://catalog.shop/".to_owned())
}

pub(crate) async fn show(shop: &mut Shop, board: &Board) -> anyhow::Result<Finding> {
    let before = shop.shopper()?.calls(catalog(), CALLS, 1).await?;
    board.say(&format!(
        "{CALLS} calls: {}; the file is edited",
        shares(&before)
    ));
    let edited = Instant::now();
    weights(shop, [50, 50])?;
    let effective = until_even(shop);
    timeout(EDIT_LIMIT * 5, effective)
        .await
        .context("the edited weights did not take effect")??;
    let took = edited.elapsed();
    board.say(&format!("in effect after {} ms", took.as_millis()));
    let after = shop.shopper()?.calls(catalog(), CALLS, 1).await?;

    let mut finding = Finding::default();
    for (report, when, expected) in [
        (&before, "before", [180, 20]),
        (&after, "after", [100, 100]),
    ] {
        let [old, new] = split(report);
        finding.measure(when, vec![old, new]);
        finding.check([old, new] == expected, || {
            format!(
                "{when} the edit {CALLS} calls went {}, not {expected:?}",
                shares(report)
            )
        });
        finding.check(report.failures() == 0, || {
            format!("{when}: {}", report.failed_of())
        });
    }
    finding.measure("edit_in_effect_milliseconds", took.as_secs_f64() * 1000.0);
    finding.check(took < EDIT_LIMIT, || format!("the edit took {took:?}"));
    finding.told = format!(
        "{}, then {}; the edit took {} ms",
        shares(&before),
        shares(&after),
        took.as_millis()
    );
    Ok(finding)
}

/// Writes the canary's weights into its file.
pub(crate) fn weights(shop: &Shop, weights: [u32; 2]) -> anyhow::Result<()> {
    shop.edit("canary.yaml", |text| {
        let mut weights = weights.iter();
        let edit = |line: &str| match (line.split_once("weight: "), line.contains("backendRefs")) {
            (Some((start, _)), false) => {
                let weight = weights.next().copied().unwrap_or_default();
                format!("{start}weight: {weight}}}\n")
            }
            _ => format!("{line}\n"),
        };
        text.lines().map(edit).collect()
    })
}

/// Of four calls in a row, nine to one gives the new version one at most.
async fn until_even(shop: &mut Shop) -> anyhow::Result<()> {
    loop {
        let report = shop.shopper()?.calls(catalog(), 4, 1).await?;
        if split(&report) == [2, 2] {
            return Ok(());
        }
    }
}

pub(crate) fn split(report: &Report) -> [u64; 2] {
    [
        report.served_by("catalog-v1-0"),
        report.served_by("catalog-v2-0"),
    ]
}

fn shares(report: &Report) -> String {
    let [old, new] = split(report);
    format!("{old}/{new}")
}
