//! What a proxy shows of itself, read inside of its pod as anybody there could:
//! `curl localhost:15022/dump`, `curl localhost:15020/metrics`.

use anyhow::Context;
use serde_json::Value;
use tokio::time::interval;

use crate::demo::{caller::LOOK, job::Target, shop::Shop};

/// The breaker's state of an endpoint, as the shopper's proxy sees it.
pub(crate) async fn breaker(shop: &mut Shop, pod: &str) -> anyhow::Result<Option<String>> {
    let dump = read(shop, "http://127.0.0.1:15022/dump").await?;
    let dump: Value = serde_json::from_str(&dump).context("/dump")?;
    let name = format!("shop/{pod}");
    let destinations = dump.get("destinations").and_then(Value::as_array);
    let endpoints = destinations
        .into_iter()
        .flatten()
        .filter_map(|it| it.pointer("/backend/endpoints")?.as_array())
        .flatten();
    let mut states = endpoints
        .filter(|it| it.get("pod").and_then(Value::as_str) == Some(&name))
        .filter_map(|it| it.pointer("/breaker/state")?.as_str());
    Ok(states.next().map(ToOwned::to_owned))
}

/// The sum of a metric's series that have all of `labels`.
pub(crate) async fn metric(shop: &mut Shop, name: &str, labels: &[&str]) -> anyhow::Result<u64> {
    let text = read(shop, "http://127.0.0.1:15020/metrics").await?;
    let series = text
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|it| it.starts_with(['{', ' ']))
        })
        .filter(|line| labels.iter().all(|label| line.contains(label)));
    let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    // Counts of events, whole as they are.
    Ok(values.sum::<f64>() as u64)
}

/// The same, once it has stopped moving: the last call is counted when it is
/// over, which its caller may know a little earlier.
pub(crate) async fn settled(shop: &mut Shop, name: &str, labels: &[&str]) -> anyhow::Result<u64> {
    let mut last = metric(shop, name, labels).await?;
    let mut look = interval(LOOK * 3);
    look.tick().await;
    loop {
        look.tick().await;
        let now = metric(shop, name, labels).await?;
        if now == std::mem::replace(&mut last, now) {
            return Ok(now);
        }
    }
}

async fn read(shop: &mut Shop, url: &str) -> anyhow::Result<String> {
    let answer = shop.shopper()?.call(Target::Get(url.to_owned())).await?;
    anyhow::ensure!(
        answer.is_ok(),
        "{url}: {} {}",
        answer.status,
        answer.body.trim()
    );
    Ok(answer.body)
}
