//! The control plane is killed, and killed again whenever it comes back, for a
//! while: traffic doesn't notice. Then it may live, and an edit that was made
//! in between is in effect.

use std::time::Duration;

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, interval, timeout};

use super::{
    canary::{catalog, split, weights},
    load::Load,
};
use crate::demo::{board::Board, caller::LOOK, finding::Finding, shop::Shop, summary::round};

const AWAY: Duration = Duration::from_millis(2500);
/// Its next start may be some seconds away by then, and proxies wait between
/// their tries, too.
const BACK: Duration = Duration::from_secs(20);

pub(crate) async fn show(shop: &mut Shop, board: &Board) -> anyhow::Result<Finding> {
    let load = Load::start(shop).await?;
    board.say("the control plane is killed");
    let killed = Instant::now();
    let kills = keep_away(shop).await?;
    board.say(&format!(
        "killed {kills} times; a route is edited; now it may live"
    ));
    weights(shop, [0, 100])?;
    shop.until(BACK, |_| true)
        .await
        .context("the control plane did not come back")?;
    let away = killed.elapsed();
    board.say(&format!(
        "back after {:.1} s; waiting until every proxy has found it",
        away.as_secs_f64()
    ));
    let pods: Vec<String> = shop
        .pods()
        .iter()
        .map(|pod| format!("shop/{pod}"))
        .collect();
    shop.until(BACK, |report| {
        pods.iter().all(|pod| {
            let mut proxies = report.proxies.iter();
            proxies.any(|it| it.pod == *pod && it.resources.iter().all(|it| it.held == it.newest))
        })
    })
    .await
    .context("the proxies did not all come back")?;
    let connected = killed.elapsed();
    let edited = timeout(BACK, until_new(shop)).await;
    edited.context("the edit is not in effect")??;
    let sum = load.stop(shop).await?;

    let mut finding = Finding::default();
    finding.measure("kills", kills);
    finding.measure("away_seconds", round(away));
    finding.measure("all_proxies_connected_after_seconds", round(connected));
    finding.measure("calls", sum.calls());
    finding.measure("failures", sum.failures());
    finding.measure("slowest_milliseconds", sum.slowest_milliseconds);
    finding.check(sum.failures() == 0, || {
        format!("calls failed: {}", sum.failed_of())
    });
    finding.check(sum.calls() > 100, || {
        format!("only {} calls were made", sum.calls())
    });
    finding.told = format!(
        "killed {kills} times, away {:.1} s: {} calls, {} failed; {} proxies connected again after {:.1} s",
        away.as_secs_f64(),
        sum.calls(),
        sum.failures(),
        pods.len(),
        connected.as_secs_f64()
    );
    Ok(finding)
}

/// Kills whatever answers on its socket; how often.
async fn keep_away(shop: &mut Shop) -> anyhow::Result<u64> {
    let mut look = interval(LOOK);
    let (mut kills, mut last) = (0, None);
    let until = Instant::now() + AWAY;
    while Instant::now() < until {
        look.tick().await;
        let pid = shop.control_plane().await.filter(|pid| last != Some(*pid));
        if let Some(pid) = pid {
            kill(Pid::from_raw(pid), Signal::SIGKILL).context("the control plane")?;
            kills += 1;
            last = Some(pid);
        }
        shop.check()?;
    }
    Ok(kills)
}

async fn until_new(shop: &mut Shop) -> anyhow::Result<()> {
    while split(&shop.shopper()?.calls(catalog(), 4, 1).await?) != [0, 4] {}
    Ok(())
}
