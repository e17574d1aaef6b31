//! Steady load on every service, over HTTP, gRPC and through nginx to Redis.

use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use crate::demo::{
    caller::{Load as Job, Reports},
    job::{Report, Target},
    shop::Shop,
};

/// Calls, after which a job is under way.
const ENOUGH: u64 = 10;
const LIMIT: Duration = Duration::from_secs(10);

/// Whom, over how many connections, how often in a second.
pub(crate) fn everything() -> [(Target, u32, u32); 4] {
    let get = |url: &str| Target::Get(url.to_owned());
    [
        (get("http://front.shop/catalog"), 2, 40),
        (get("http://front.shop/cart"), 2, 30),
        (get("http://stock.shop/"), 1, 20),
        (Target::Charge("http://payment.shop:9090".to_owned()), 1, 10),
    ]
}

#[derive(Debug)]
pub(crate) struct Load(Vec<Job>);

impl Load {
    pub(crate) async fn start(shop: &mut Shop) -> anyhow::Result<Self> {
        let mut jobs = Vec::new();
        for (target, lanes, per_second) in everything() {
            jobs.push(shop.shopper()?.load(target, lanes, per_second).await?);
        }
        let load = Self(jobs);
        load.under_way(shop).await?;
        Ok(load)
    }

    /// Waits until every path has been gone, by both of its IP versions.
    async fn under_way(&self, shop: &mut Shop) -> anyhow::Result<()> {
        let goes = |reports: &Reports| {
            let calls = |job: &Job| reports.get(&job.id()).map_or(0, Report::calls);
            self.0.iter().all(|job| calls(job) >= ENOUGH)
        };
        let mut reports = shop.shopper()?.reports();
        let came = timeout(LIMIT, reports.wait_for(goes)).await;
        came.context("the load did not start")?
            .context("the shopper has gone")?;
        Ok(())
    }

    /// All of it together.
    pub(crate) async fn stop(self, shop: &mut Shop) -> anyhow::Result<Report> {
        let mut sum = Report::default();
        for job in self.0 {
            let report = shop.shopper()?.stop(job).await?;
            for (to, from) in [
                (&mut sum.answers, report.answers),
                (&mut sum.errors, report.errors),
            ] {
                for (what, count) in from {
                    *to.entry(what).or_default() += count;
                }
            }
            let slowest = report.slowest_milliseconds;
            sum.slowest_milliseconds = sum.slowest_milliseconds.max(slowest);
        }
        Ok(sum)
    }
}
