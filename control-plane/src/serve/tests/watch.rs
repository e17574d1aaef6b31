//! What a proxy hears when it watches.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use prost::Message as _;
use tokio::sync::Notify;
use tonic::Code;
use weft_proto::v1::{self, Kind, resource::Body, watch_request::Message};

use crate::{
    model::{
        BackendName, BackendRef, Event, Key, Kind as ObjectKind, Match, Name, Object, Parent,
        Route, Rule,
    },
    serve::{resource::ResourceName, stream::Caller, tests::harness::*},
};

fn split(backends: &[(&str, u32)]) -> Object {
    let backends = backends.iter().map(|(name, weight)| BackendRef {
        backend: BackendName {
            service: Name::new("shop", name),
            port: 80,
        },
        weight: *weight,
        invalid: None,
        filters: Vec::new(),
    });
    let rule = Rule {
        matches: vec![Match::default()],
        backends: backends.collect(),
        ..Rule::default()
    };
    Object::Route(Route {
        name: Name::new("shop", "split"),
        parents: vec![Parent {
            service: Name::new("shop", "cart"),
            ..Parent::default()
        }],
        rules: vec![rule],
        ..Route::default()
    })
}

fn deleted(kind: ObjectKind, name: &str) -> Event {
    Event::Delete(Key {
        kind,
        name: Name::new("shop", name),
    })
}

#[tokio::test]
async fn the_first_response_is_the_pods_own_configuration_and_the_heartbeats_interval() {
    let plane = Plane::with_shop(QUIET).await;
    let mut watcher = plane.watch("cart-0").await;
    let response = watcher.next().await;
    assert_eq!(
        names(&response),
        ["MESH", "TRUST_BUNDLE", "WORKLOAD shop/cart-0"]
    );
    let heartbeat = response.heartbeat.unwrap();
    assert_eq!(
        (heartbeat.interval_milliseconds, heartbeat.newest.len()),
        (600_000, 3)
    );
}

#[tokio::test]
async fn an_address_brings_all_that_it_depends_on_in_one_response_and_in_order() {
    let plane = Plane::with_shop(QUIET).await;
    plane
        .apply(vec![
            service("canary", "10.0.0.2"),
            pod("canary-0", "10.1.0.9"),
            split(&[("cart", 9), ("canary", 1)]),
        ])
        .await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    watcher.subscribe(Kind::Address, "10.0.0.1:80").await;
    let response = watcher.next().await;
    let expected = [
        "ENDPOINTS shop/canary:80",
        "ENDPOINTS shop/cart:80",
        "SERVICE shop/canary",
        "SERVICE shop/cart",
        "ADDRESS 10.0.0.1:80",
    ];
    assert_eq!(names(&response), expected);
    assert_eq!(
        endpoints(&response)
            .iter()
            .map(|it| it.added_or_updated.len())
            .collect::<Vec<_>>(),
        [1, 2]
    );
    let endpoint = &endpoints(&response)[1].added_or_updated[0];
    assert_eq!(endpoint.identity, "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(endpoint.mesh_protocols, ["weft1-h2", "weft1-tcp"]);
}

#[tokio::test]
async fn one_endpoints_change_is_sent_alone() {
    let plane = Plane::with_shop(QUIET).await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    watcher.subscribe(Kind::Service, "shop/cart").await;
    let whole = watcher.next().await;
    plane.apply(vec![pod("cart-2", "10.1.0.3")]).await;
    let mut delta = watcher.next().await;
    if names(&delta) == ["MESH"] {
        delta = watcher.next().await;
    }
    let changed = delta
        .resources
        .iter()
        .find(|it| matches!(it.body, Some(Body::Endpoints(_))))
        .unwrap();
    let Some(Body::Endpoints(change)) = &changed.body else {
        panic!()
    };
    let base = whole
        .resources
        .iter()
        .find(|it| it.name == changed.name)
        .unwrap()
        .version;
    assert!(!change.whole && change.base == base && change.removed.is_empty());
    assert_eq!(change.added_or_updated.len(), 1);
    assert_eq!(change.added_or_updated[0].pod, "cart-2");
    plane.events(vec![deleted(ObjectKind::Pod, "cart-2")]).await;
    let back = watcher.next().await;
    let change = endpoints(&back)[0];
    assert_eq!(
        (change.added_or_updated.len(), change.removed.len()),
        (0, 1)
    );
    // The same content has the same version as before.
    let version = back
        .resources
        .iter()
        .find(|it| it.name == changed.name)
        .unwrap()
        .version;
    assert_eq!(version, base);
}

#[tokio::test]
async fn a_moved_route_brings_its_new_backend_and_removes_the_old_one() {
    let plane = Plane::with_shop(QUIET).await;
    plane
        .apply(vec![
            service("a", "10.0.0.2"),
            service("b", "10.0.0.3"),
            split(&[("a", 1)]),
        ])
        .await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    watcher.subscribe(Kind::Address, "10.0.0.1:80").await;
    assert!(names(&watcher.next().await).contains(&"SERVICE shop/a".to_owned()));
    plane.apply(vec![split(&[("b", 1)])]).await;
    let response = watcher.next().await;
    assert_eq!(
        names(&response),
        ["ENDPOINTS shop/b:80", "SERVICE shop/b", "SERVICE shop/cart"]
    );
    let mut removed: Vec<&str> = response.removed.iter().map(|it| it.name.as_str()).collect();
    removed.sort_unstable();
    assert_eq!(removed, ["shop/a", "shop/a:80"]);
    watcher
        .say(Message::Unsubscribe(v1::Unsubscribe {
            name: Some(named(Kind::Address, "10.0.0.1:80")),
        }))
        .await;
    assert_eq!(watcher.next().await.removed.len(), 5);
    let left = plane.hub.ask(|state| state.report(0)).await.unwrap();
    assert_eq!(left.proxies[0].resources.len(), 3);
}

#[tokio::test]
async fn an_address_that_becomes_a_service_is_told_to_who_asked() {
    let plane = Plane::with_shop(QUIET).await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    watcher.subscribe(Kind::Address, "10.0.0.77:80").await;
    let response = watcher.next().await;
    let Some(Body::Address(address)) = &response.resources[0].body else {
        panic!()
    };
    assert!(matches!(
        address.meaning,
        Some(v1::address::Meaning::Unknown(_))
    ));
    plane.apply(vec![service("late", "10.0.0.77")]).await;
    let mut seen = Vec::new();
    while !seen.contains(&"ADDRESS 10.0.0.77:80".to_owned()) {
        seen.extend(names(&watcher.next().await));
    }
    assert!(
        seen.contains(&"ENDPOINTS shop/late:80".to_owned())
            && seen.contains(&"SERVICE shop/late".to_owned())
    );
}

#[tokio::test]
async fn what_a_proxy_still_holds_is_not_sent_again() {
    let plane = Plane::with_shop(QUIET).await;
    let mut held = BTreeMap::new();
    let mut watcher = plane.watch("cart-0").await;
    for _ in 0..2 {
        let response = watcher.next().await;
        for resource in response.resources {
            let name = resource.name.unwrap();
            held.insert((name.kind, name.name), resource.version);
        }
        if held.len() == 3 {
            watcher.subscribe(Kind::Address, "10.0.0.1:80").await;
        }
    }
    assert_eq!(held.len(), 6);
    drop(watcher);
    plane
        .apply(vec![pod("cart-0", "10.1.0.1"), split(&[("cart", 1)])])
        .await;
    let held = held.into_iter().map(|((kind, name), version)| v1::Held {
        name: Some(v1::Name { kind, name }),
        version,
    });
    let again = v1::Hello {
        held: held.collect(),
        ..hello("cart-0")
    };
    let mut watcher = plane
        .watch_with(again, plane.credentials("cart"))
        .await
        .unwrap();
    assert_eq!(names(&watcher.next().await), Vec::<String>::new());
    watcher.subscribe(Kind::Address, "10.0.0.1:80").await;
    assert_eq!(names(&watcher.next().await), ["SERVICE shop/cart"]);
}

#[tokio::test]
async fn a_reject_is_reported_with_its_reason_and_the_next_change_goes_out_whole() {
    let plane = Plane::with_shop(QUIET).await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    watcher.subscribe(Kind::Service, "shop/cart").await;
    let response = watcher.hear().await.unwrap().unwrap();
    let first = &response.resources[0];
    let reject = v1::Reject {
        nonce: response.nonce,
        name: first.name.clone(),
        version: first.version,
        reason: "no such protocol".into(),
    };
    watcher.say(Message::Reject(reject)).await;
    let rejects = async || {
        plane
            .hub
            .ask(|state| state.report(0))
            .await
            .unwrap()
            .proxies[0]
            .rejects
            .clone()
    };
    eventually(async || rejects().await.len() == 1).await;
    assert_eq!(rejects().await[0].reason, "no such protocol");
    plane.apply(vec![pod("cart-2", "10.1.0.3")]).await;
    let mut seen = watcher.next().await;
    if names(&seen) == ["MESH"] {
        seen = watcher.next().await;
    }
    assert!(endpoints(&seen)[0].whole);
    // Applying a newer version settles it.
    eventually(async || rejects().await.is_empty()).await;
    assert_eq!(plane.metrics.rejects.get(), 1);
}

#[tokio::test]
async fn a_large_answer_comes_in_pieces_with_the_heartbeat_in_the_last() {
    let plane = Plane::with_shop(QUIET).await;
    let service_of = |at: u32| {
        service(
            &format!("s{at}"),
            &format!("10.2.{}.{}", at / 250, at % 250 + 1),
        )
    };
    let services = 40;
    plane.apply((0..services).map(service_of).collect()).await;
    for at in 0..services {
        let pods = (0..100).map(|it| {
            pod(
                &format!("s{at}-{}{it}", "x".repeat(180)),
                &format!("10.{}.{it}.1", at + 10),
            )
        });
        plane.apply(pods.collect()).await;
    }
    let caller = Arc::new(Notify::new());
    let joined = caller.clone();
    let batches = plane.hub.ask(move |state| {
        let caller = Caller {
            pod: Name::new("shop", "cart-0"),
            uid: String::new(),
            service_account: "cart".into(),
            identity: String::new(),
            version: String::new(),
            features: Vec::new(),
            signed: signed(),
            expires: 0,
        };
        let id = state.join(caller, &joined, HashMap::new());
        for at in 0..services {
            state
                .ask_for(
                    id,
                    ResourceName::Service(Name::new("shop", &format!("s{at}"))),
                    false,
                )
                .unwrap();
        }
        let mut batches = Vec::new();
        loop {
            batches.push(state.pull(id, Some(1)));
            if !batches.last().unwrap().more {
                return batches;
            }
        }
    });
    let batches = batches.await.unwrap();
    assert!(batches.len() > 1, "{}", batches.len());
    let kinds: Vec<&str> = batches
        .iter()
        .flat_map(|it| &it.content)
        .map(|(name, _)| name.kind())
        .collect();
    assert_eq!(kinds.len(), 3 + 2 * services as usize);
    assert!(
        kinds.is_sorted_by_key(|kind| *kind == "service"),
        "what refers to others comes after them"
    );
    for (at, batch) in batches.iter().enumerate() {
        let response = v1::WatchResponse::decode(batch.parts.concat().as_slice()).unwrap();
        assert_eq!(response.heartbeat.is_some(), at + 1 == batches.len());
        assert!(response.encoded_len() < 2 * 1024 * 1024);
    }
}

#[tokio::test]
async fn what_no_proxy_may_ask_for_ends_the_stream() {
    let plane = Plane::with_shop(QUIET).await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    watcher.subscribe(Kind::Workload, "shop/cart-1").await;
    assert_eq!(
        watcher.hear().await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_pod_that_is_replaced_loses_its_stream() {
    let plane = Plane::with_shop(QUIET).await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    plane.events(vec![deleted(ObjectKind::Pod, "cart-0")]).await;
    let ended = watcher.hear().await.unwrap_err();
    assert_eq!(
        (ended.code(), ended.message()),
        (Code::FailedPrecondition, "its pod is gone")
    );
}

#[tokio::test]
async fn a_newer_stream_of_a_pod_ends_the_older() {
    let plane = Plane::with_shop(QUIET).await;
    let mut older = plane.watch("cart-0").await;
    older.next().await;
    let mut newer = plane.watch("cart-0").await;
    newer.next().await;
    assert_eq!(
        older.hear().await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    plane
        .apply(vec![pod("cart-2", "10.1.0.3"), service("late", "10.9.0.1")])
        .await;
    newer.subscribe(Kind::Service, "shop/cart").await;
    let mut seen = Vec::new();
    while !seen.contains(&"SERVICE shop/cart".to_owned()) {
        seen.extend(names(&newer.next().await));
    }
}
