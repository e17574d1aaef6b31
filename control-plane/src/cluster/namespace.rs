//! What injection has to know of a namespace, asked when a pod is made.
//!
//! `app` hands it to `admission`. Asked live, not kept: a quota that was made a
//! moment ago counts, and a list of a few objects out of the API server's cache
//! takes less than a pod has time. What can't be learnt is taken for absent: it
//! only makes a refusal clearer, or adds limits that the API server demands
//! anyway.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{LimitRange, LimitRangeItem, Namespace, ResourceQuota},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{Api, api::ListParams};

use super::{Cluster, Failure, call};
use crate::admission::{self, Bounds};

pub(crate) async fn known(cluster: Cluster, name: String) -> admission::Namespace {
    // Boxed: three requests' futures are large.
    Box::pin(ask(cluster, name)).await
}

async fn ask(cluster: Cluster, name: String) -> admission::Namespace {
    let client = || cluster.client.clone();
    let namespaces: Api<Namespace> = Api::all(client());
    let quotas: Api<ResourceQuota> = Api::namespaced(client(), &name);
    let ranges: Api<LimitRange> = Api::namespaced(client(), &name);
    // Any version: out of its cache.
    let all = ListParams::default().match_any();
    let (namespace, quotas, ranges) = tokio::join!(
        call(namespaces.get(&name)),
        call(quotas.list(&all)),
        call(ranges.list(&all)),
    );
    let namespace = told(namespace, &name);
    let quotas = told(quotas, &name).map(|it| it.items).unwrap_or_default();
    let ranges = told(ranges, &name).map(|it| it.items).unwrap_or_default();
    admission::Namespace {
        labels: namespace
            .and_then(|it| it.metadata.labels)
            .unwrap_or_default(),
        cpu: bounds("cpu", &quotas, &ranges),
        memory: bounds("memory", &quotas, &ranges),
    }
}

fn told<T>(answer: Result<T, Failure>, namespace: &str) -> Option<T> {
    answer
        .inspect_err(|error| {
            tracing::warn!(%error, namespace, "a namespace is not known whole at injection");
        })
        .ok()
}

/// Of several LimitRanges the narrowest holds. A quota of limits counts them,
/// and a container's most needs one to compare: without a limit the API server
/// refuses the pod. Where there is a default it would be set, and might be below
/// what is requested.
fn bounds(resource: &str, quotas: &[ResourceQuota], ranges: &[LimitRange]) -> Bounds {
    let key = format!("limits.{resource}");
    let by_quota = quotas.iter().any(|it| {
        let hard = it.spec.as_ref().and_then(|it| it.hard.as_ref());
        hard.is_some_and(|it| it.contains_key(&key))
    });
    let items = ranges
        .iter()
        .filter_map(|it| it.spec.as_ref())
        .flat_map(|it| &it.limits);
    let items: Vec<_> = items.filter(|it| it.type_ == "Container").collect();
    let of = |part: Part| {
        let all = items
            .iter()
            .filter_map(|it| part(it).as_ref()?.get(resource));
        all.map(|it| it.0.clone()).collect::<Vec<_>>()
    };
    let smallest = |all: Vec<String>| all.into_iter().min_by_key(|it| admission::amount(it));
    let (most, ratio) = (of(|it| &it.max), of(|it| &it.max_limit_request_ratio));
    let by_range = [&most, &ratio, &of(|it| &it.default)];
    Bounds {
        demands_limit: by_quota || by_range.iter().any(|it| !it.is_empty()),
        least: of(|it| &it.min)
            .into_iter()
            .max_by_key(|it| admission::amount(it)),
        most: smallest(most),
        ratio: smallest(ratio),
    }
}

type Part = fn(&LimitRangeItem) -> &Option<BTreeMap<String, Quantity>>;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::fake::Fake;

    async fn known_with(path: &str, items: Value) -> admission::Namespace {
        let fake = Fake::default();
        for list in ["resourcequotas", "limitranges"] {
            let items = if list == path {
                items.clone()
            } else {
                json!([])
            };
            let path = format!("/api/v1/namespaces/shop/{list}");
            fake.put(&path, json!({"metadata": {}, "items": items}));
        }
        let namespace = json!({"metadata": {"name": "shop", "labels": {"a": "b"}}});
        fake.put("/api/v1/namespaces/shop", namespace);
        Box::pin(known(fake.cluster(), "shop".to_owned())).await
    }

    #[tokio::test]
    async fn limits_are_demanded_by_quotas_and_by_the_most_of_a_container() {
        let quota = |key: &str| json!([{"spec": {"hard": {"pods": "10", key: "4"}}}]);
        let range = |kind: &str, bound: &str, of: &str| json!([{"spec": {"limits": [{"type": kind, bound: {of: "1"}}]}}]);
        for (list, items, expected) in [
            ("resourcequotas", json!([]), (false, false)),
            ("resourcequotas", quota("requests.cpu"), (false, false)),
            ("resourcequotas", quota("limits.cpu"), (true, false)),
            ("resourcequotas", quota("limits.memory"), (false, true)),
            (
                "limitranges",
                range("Container", "max", "memory"),
                (false, true),
            ),
            (
                "limitranges",
                range("Container", "maxLimitRequestRatio", "cpu"),
                (true, false),
            ),
            // It would be set on our containers after us.
            (
                "limitranges",
                range("Container", "default", "cpu"),
                (true, false),
            ),
            (
                "limitranges",
                range("Container", "min", "cpu"),
                (false, false),
            ),
            ("limitranges", range("Pod", "max", "cpu"), (false, false)),
        ] {
            let known = Box::pin(known_with(list, items.clone())).await;
            let demanded = (known.cpu.demands_limit, known.memory.demands_limit);
            assert_eq!(demanded, expected, "{items}");
            assert_eq!(
                known.labels,
                BTreeMap::from([("a".to_owned(), "b".to_owned())])
            );
        }
    }

    #[tokio::test]
    async fn of_several_limit_ranges_the_narrowest_holds() {
        let range = |kind: &str, min: &str, max: &str, ratio: &str| {
            json!({"spec": {"limits": [{
                "type": kind, "min": {"cpu": min}, "max": {"cpu": max}, "maxLimitRequestRatio": {"cpu": ratio},
            }]}})
        };
        let items = json!([
            range("Container", "50m", "2", "10"),
            range("Container", "0.1", "3000m", "4"),
            range("Pod", "1", "1", "1"),
        ]);
        let known = Box::pin(known_with("limitranges", items)).await;
        let text = |it: &str| Some(it.to_owned());
        let expected = Bounds {
            demands_limit: true,
            least: text("0.1"),
            most: text("2"),
            ratio: text("4"),
        };
        assert_eq!(known.cpu, expected);
        assert_eq!(known.memory, Bounds::default());
    }

    #[tokio::test]
    async fn what_the_api_server_does_not_tell_is_taken_for_absent() {
        let fake = Fake::default();
        fake.fail("/api/v1/namespaces/shop", 500);
        let known = Box::pin(known(fake.cluster(), "shop".to_owned())).await;
        assert_eq!(known, admission::Namespace::default());
    }
}
