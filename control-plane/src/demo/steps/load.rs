//! Steady load on every service, over HTTP, gRPC and through nginx to Redis.

use crate::demo::{
    caller::Load as Job,
    job::{Report, Target},
    shop::Shop,
};

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
        Ok(Self(jobs))
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
