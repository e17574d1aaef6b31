//! Who gets through TLS, and what ends a connection that did.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::rustls;
use tonic::Code;
use weft_proto::v1::{self, resource::Body};

use crate::{
    ca::bundle::Roots,
    serve::{
        hub::State,
        metrics::{Reason, Refused},
        tests::harness::*,
    },
};

#[tokio::test]
async fn plaintext_and_older_tls_are_refused() {
    let plane = Plane::with_shop(QUIET).await;
    let mut plain = TcpStream::connect(plane.address).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // An alert, then the end: never a settings frame.
    let _reset = plain.read_to_end(&mut answer).await;
    assert!(answer.first().is_none_or(|it| *it == 0x15), "{answer:?}");
    let old = client(plane.authority.root(), None, &[&rustls::version::TLS12]);
    let error = handshake(plane.address, old).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_and_counted() {
    let plane = Plane::limited(QUIET, 2).await;
    plane.apply(shop()).await;
    plane.hub.ask(State::synced).await.unwrap();
    let (mut first, mut second) = (plane.watch("cart-0").await, plane.watch("cart-1").await);
    first.next().await;
    second.next().await;
    assert!(plane.connect(None).await.is_err());
    let too_many = Refused {
        reason: Reason::TooMany,
    };
    assert_eq!(plane.metrics.refused.get_or_create(&too_many).get(), 1);
    drop(second);
    eventually(async || plane.metrics.connections.get() == 1).await;
    plane.connect(None).await.unwrap();
}

#[tokio::test]
async fn members_of_the_mesh_that_say_nothing_keep_no_proxy_out() {
    let plane = Plane::limited(QUIET, 3).await;
    plane.apply(shop()).await;
    plane.hub.ask(State::synced).await.unwrap();
    let mut silent = Vec::new();
    let mut more = async || {
        for _ in 0..8 {
            let credentials = plane.credentials("cart");
            silent.push(plane.connect(Some(credentials)).await.unwrap());
        }
    };
    more().await;
    let mut first = plane.watch("cart-0").await;
    first.next().await;
    more().await;
    let mut second = plane.watch("cart-1").await;
    second.next().await;
    more().await;
    // Who watches keeps its place.
    for watcher in [&mut first, &mut second] {
        watcher.subscribe(v1::Kind::Service, "shop/cart").await;
        watcher.next().await;
    }
}

#[tokio::test]
async fn connections_that_prove_nothing_keep_no_proxy_out() {
    let plane = Plane::limited(QUIET, 3).await;
    plane.apply(shop()).await;
    plane.hub.ask(State::synced).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(plane.address).await.unwrap());
    }
    let mut anonymous = Vec::new();
    for _ in 0..8 {
        anonymous.push(plane.connect(None).await.unwrap());
    }
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    let token = plane.token("cart-0", "cart");
    plane.certify(&token, request()).await.unwrap();
    watcher.subscribe(v1::Kind::Service, "shop/cart").await;
    watcher.next().await;
}

#[tokio::test]
async fn a_replica_that_goes_tells_its_proxies_and_takes_no_others() {
    let plane = Plane::with_shop(QUIET).await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    plane.going.send_replace(true);
    let told = watcher.hear().await.unwrap_err();
    assert_eq!(told.code(), Code::Unavailable);
    eventually(async || plane.connect(None).await.is_err()).await;
}

/// The clock is paused: what takes long here takes no time.
#[tokio::test(start_paused = true)]
async fn a_caller_without_a_certificate_has_half_a_minute() {
    let plane = Plane::with_shop(QUIET).await;
    let _channel = plane.connect(None).await.unwrap();
    eventually(async || plane.metrics.connections.get() == 1).await;
    tokio::time::sleep(std::time::Duration::from_secs(31)).await;
    eventually(async || plane.metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn a_caller_below_a_foreign_root_is_refused() {
    let plane = Plane::with_shop(QUIET).await;
    let (_state, foreign) = authority();
    let (issued, key) = foreign
        .own("spiffe://cluster.local/ns/shop/sa/cart")
        .unwrap();
    let credentials = Credentials {
        chain: issued.chain,
        key: key_of(key),
    };
    assert!(
        plane
            .watch_with(hello("cart-0"), credentials)
            .await
            .is_err()
    );
    let report = plane.hub.ask(|state| state.report(0)).await.unwrap();
    assert!(report.proxies.is_empty());
}

#[tokio::test]
async fn watching_needs_a_certificate_of_the_pods_own_account() {
    let plane = Plane::with_shop(QUIET).await;
    let channel = plane.connect(None).await.unwrap();
    let hello_alone = v1::WatchRequest {
        message: Some(v1::watch_request::Message::Hello(hello("cart-0"))),
    };
    let mut client = v1::discovery_client::DiscoveryClient::new(channel);
    let anonymous = client
        .watch(tokio_stream::once(hello_alone))
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!(anonymous.code(), Code::Unauthenticated);
    let code = |answer: Result<Watcher, tonic::Status>| answer.map(drop).unwrap_err().code();
    let other = plane
        .watch_with(hello("cart-0"), plane.credentials("admin"))
        .await;
    assert_eq!(code(other), Code::PermissionDenied);
    let other = plane.credentials_of("spiffe://cluster.local/ns/billing/sa/cart");
    assert_eq!(
        code(plane.watch_with(hello("cart-0"), other).await),
        Code::PermissionDenied
    );
    let absent = plane
        .watch_with(hello("cart-9"), plane.credentials("cart"))
        .await;
    assert_eq!(code(absent), Code::NotFound);
    let replaced = v1::Hello {
        pod_uid: "another".into(),
        ..hello("cart-0")
    };
    assert_eq!(
        code(plane.watch_with(replaced, plane.credentials("cart")).await),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn a_second_root_reaches_proxies_and_admits_its_callers_until_it_is_removed() {
    let plane = Plane::with_shop(QUIET).await;
    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    let (_state, second) = authority();
    let both: Roots = [plane.authority.root(), second.root()].into();
    plane.tls.send_replace(tls_of(&plane.authority, &both));
    plane
        .hub
        .ask(move |state| state.set_roots(both))
        .await
        .unwrap();
    let response = watcher.next().await;
    let Some(Body::TrustBundle(bundle)) = &response.resources[0].body else {
        panic!("{:?}", names(&response))
    };
    assert_eq!(bundle.roots.len(), 2);
    let (issued, key) = second
        .own("spiffe://cluster.local/ns/shop/sa/cart")
        .unwrap();
    let credentials = Credentials {
        chain: issued.chain,
        key: key_of(key),
    };
    let mut admitted = plane
        .watch_with(hello("cart-1"), credentials)
        .await
        .unwrap();
    admitted.next().await;
    let one: Roots = Arc::from([plane.authority.root()]);
    plane.tls.send_replace(tls_of(&plane.authority, &one));
    let ended = admitted.hear().await.unwrap_err();
    assert_eq!(
        (ended.code(), ended.message()),
        (
            Code::Unauthenticated,
            "the certificate's root is no longer trusted"
        )
    );
    // The first root's caller stays.
    plane.apply(vec![pod("cart-2", "10.1.0.3")]).await;
    plane
        .hub
        .ask(move |state| state.set_roots(one))
        .await
        .unwrap();
    assert!(
        names(&watcher.next().await)
            .iter()
            .any(|it| it == "TRUST_BUNDLE" || it == "MESH")
    );
}
