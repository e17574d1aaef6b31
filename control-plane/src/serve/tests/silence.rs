//! Readers that are slow, stuck or gone.

use std::{collections::BTreeSet, time::Duration};

use tokio_stream::wrappers::ReceiverStream;
use weft_proto::v1::Kind;

use crate::{
    model::{BackendName, Name, Object},
    serve::{resource::ResourceName, tests::harness::*},
};

#[tokio::test]
async fn a_slow_reader_costs_what_it_subscribes_to_and_ends_with_the_right_state() {
    let plane = Plane::with_shop(QUIET).await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    watcher.subscribe(Kind::Service, "shop/cart").await;
    watcher.next().await;
    for round in 0..10_000_u32 {
        let Object::Pod(mut pod) = pod("cart-1", "10.1.0.2") else {
            panic!()
        };
        pod.weight = round % 1000 + 2;
        plane.apply(vec![Object::Pod(pod)]).await;
    }
    let (pending, pushes) = (
        plane.hub.ask(|state| state.pending()).await.unwrap(),
        plane.metrics.pushes.get(),
    );
    assert!(pending <= 5, "{pending} names pending");
    // What it did not read was never made.
    assert!(pushes < 20, "{pushes} responses");
    let name = ResourceName::Endpoints(BackendName {
        service: Name::new("shop", "cart"),
        port: 80,
    });
    let newest = plane
        .hub
        .ask(move |state| state.newest(&name))
        .await
        .unwrap();
    loop {
        let response = watcher.next().await;
        let of_cart = response
            .resources
            .iter()
            .find(|it| it.name.as_ref().is_some_and(|it| it.name == "shop/cart:80"));
        if let Some(resource) = of_cart
            && resource.version == newest
        {
            // It missed more than what is kept for deltas.
            let change = endpoints(&response)[0];
            assert!(change.whole);
            assert_eq!(
                change
                    .added_or_updated
                    .iter()
                    .map(|it| it.weight)
                    .collect::<Vec<_>>(),
                [1, 9999 % 1000 + 2]
            );
            break;
        }
    }
}

#[tokio::test]
async fn a_proxy_that_answers_nothing_is_disconnected_and_forgotten() {
    let plane = Plane::with_shop(Duration::from_millis(50)).await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    let report = async || plane.hub.ask(|state| state.report(0)).await.unwrap();
    let is_away = |report: &crate::report::Report| {
        let mut away = report.not_connected.iter();
        away.any(|it| it.pod == "shop/cart-0")
    };
    let connected = report().await;
    assert!(!is_away(&connected), "{connected:?}");
    assert!(connected.proxies[0].certificate_expires_seconds > 0);
    // It goes on reading: being alive is answering.
    while let Ok(Some(_)) = watcher.hear().await {}
    let left = report().await;
    assert!(left.proxies.is_empty());
    assert!(is_away(&left), "{left:?}");
}

#[tokio::test]
async fn heartbeats_name_the_newest_version_of_everything() {
    let plane = Plane::with_shop(Duration::from_millis(50)).await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    watcher.subscribe(Kind::Address, "10.0.0.1:80").await;
    let mut held = BTreeSet::new();
    for _ in 0..2 {
        let heartbeat = loop {
            if let Some(heartbeat) = watcher.next().await.heartbeat
                && heartbeat.newest.len() == 6
            {
                break heartbeat;
            }
        };
        held.insert(
            heartbeat
                .newest
                .iter()
                .map(|it| it.version)
                .collect::<Vec<_>>(),
        );
    }
    // Nothing has changed in between, and nothing is 0.
    assert_eq!(held.len(), 1);
    assert!(held.iter().flatten().all(|it| *it != 0));
}

/// The stream of a process that was stopped: nothing is read, nothing answered.
#[tokio::test]
async fn a_frozen_proxys_socket_is_closed_though_its_window_is_full() {
    let plane = Plane::with_shop(Duration::from_millis(50)).await;
    let channel = plane
        .connect(Some(plane.credentials("cart")))
        .await
        .unwrap();
    let (requests, outgoing) = tokio::sync::mpsc::channel(8);
    let message = weft_proto::v1::watch_request::Message::Hello(hello("cart-0"));
    requests
        .send(weft_proto::v1::WatchRequest {
            message: Some(message),
        })
        .await
        .unwrap();
    let mut client = weft_proto::v1::discovery_client::DiscoveryClient::new(channel);
    let _unread = client.watch(ReceiverStream::new(outgoing)).await.unwrap();
    eventually(async || plane.metrics.connections.get() == 0).await;
}
