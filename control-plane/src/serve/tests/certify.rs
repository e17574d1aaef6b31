//! Who gets a certificate, and for what.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;
use tonic::Code;
use weft_proto::v1::{CertifyRequest, identity_server::Identity as _};
use x509_parser::parse_x509_certificate;

use crate::{
    app, identity,
    model::{self, Event, Key, Kind, Name, Object},
    serve::{
        accept::{Closer, Peer},
        identity::{Asking, Bearer, Confirmed, Identity, Tokens, Unverified},
        tests::harness::*,
    },
};

/// Believes nobody, and remembers who asked.
#[derive(Default)]
struct Recorder(Mutex<Vec<Option<IpAddr>>>);

impl Tokens for Recorder {
    fn verify<'a>(&'a self, _: &'a str, from: Option<IpAddr>) -> Asking<'a, Bearer> {
        self.0.lock().unwrap().push(from);
        Box::pin(async { Err(Unverified::Refused("of nobody".to_owned())) })
    }

    fn confirm<'a>(&'a self, _: &'a Bearer, _: Option<IpAddr>) -> Asking<'a, Confirmed> {
        Box::pin(async { Ok(Confirmed::AsIndexed) })
    }
}

#[tokio::test]
async fn a_token_is_verified_on_account_of_the_callers_address() {
    let plane = Plane::with_shop(QUIET).await;
    let recorder = Arc::new(Recorder::default());
    let service = Identity {
        hub: plane.hub.clone(),
        tokens: recorder.clone(),
        signer: app::authority::signer(plane.authority.clone()),
        roots: watch::channel([plane.authority.root()].into()).1,
        metrics: plane.metrics.clone(),
    };
    let from = IpAddr::from([10, 1, 0, 1]);
    let mut request = tonic::Request::new(CertifyRequest::default());
    request.extensions_mut().insert(Peer {
        verified: None,
        closer: Closer::default(),
        pass: pass(Some(from)),
    });
    let refused = service.certify(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(*recorder.0.lock().unwrap(), [Some(from)]);
}

/// Believes everybody, and knows no more than what the cluster says.
struct Cluster(Bearer);

impl Tokens for Cluster {
    fn verify<'a>(&'a self, _: &'a str, _: Option<IpAddr>) -> Asking<'a, Bearer> {
        Box::pin(async { Ok(self.0.clone()) })
    }

    fn confirm<'a>(&'a self, _: &'a Bearer, _: Option<IpAddr>) -> Asking<'a, Confirmed> {
        Box::pin(async { Ok(Confirmed::Runs) })
    }
}

#[tokio::test]
async fn of_a_pod_outside_of_the_mesh_the_cluster_is_asked() {
    let plane = Plane::with_shop(QUIET).await;
    let pod = model::Pod {
        name: Name::new("shop", "certify"),
        uid: "uid".to_owned(),
        ..model::Pod::default()
    };
    let bearer = Bearer {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        service_account: "default".into(),
    };
    plane.events(vec![Event::Apply(Object::Pod(pod))]).await;
    let service = Identity {
        hub: plane.hub.clone(),
        tokens: Arc::new(Cluster(bearer)),
        signer: app::authority::signer(plane.authority.clone()),
        roots: watch::channel([plane.authority.root()].into()).1,
        metrics: plane.metrics.clone(),
    };
    let asked = CertifyRequest {
        certificate_signing_request: request().into(),
        ..CertifyRequest::default()
    };
    let answer = service.certify(tonic::Request::new(asked)).await.unwrap();
    let (_, leaf) = parse_x509_certificate(&answer.get_ref().chain[0]).unwrap();
    assert_eq!(
        identity::uris(&leaf),
        ["spiffe://cluster.local/ns/shop/sa/default"]
    );
}

#[tokio::test]
async fn a_pods_token_gets_its_accounts_identity() {
    let plane = Plane::with_shop(QUIET).await;
    let answer = plane
        .certify(&plane.token("cart-0", "cart"), request())
        .await
        .unwrap();
    let (_, leaf) = parse_x509_certificate(&answer.chain[0]).unwrap();
    assert_eq!(
        identity::uris(&leaf),
        ["spiffe://cluster.local/ns/shop/sa/cart"]
    );
    assert_eq!(answer.roots, [plane.authority.root().as_ref().to_vec()]);
    let report = plane.hub.ask(|state| state.report(0)).await.unwrap();
    assert_eq!(report.certificates[0].pod, "shop/cart-0");
    assert_eq!(plane.metrics.certificates.get(), 1);
}

#[tokio::test]
async fn without_a_valid_token_there_is_none() {
    let plane = Plane::with_shop(QUIET).await;
    let (other, _) = authority();
    let who = crate::ca::token::Claimed {
        pod: Name::new("shop", "cart-0"),
        uid: String::new(),
        service_account: "cart".into(),
    };
    let stolen = tokens_of(&other)
        .mint(&who, QUIET, crate::clock::Wall::System)
        .unwrap();
    for token in ["", "a.b.c", stolen.as_str()] {
        assert_eq!(
            plane.certify(token, request()).await.unwrap_err().code(),
            Code::Unauthenticated
        );
    }
}

#[tokio::test]
async fn a_pod_that_is_not_there_or_runs_as_another_gets_none() {
    let plane = Plane::with_shop(QUIET).await;
    let absent = plane
        .certify(&plane.token("cart-9", "cart"), request())
        .await
        .unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    let other = plane
        .certify(&plane.token("cart-0", "admin"), request())
        .await
        .unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    let gone = Event::Delete(Key {
        kind: Kind::Pod,
        name: Name::new("shop", "cart-0"),
    });
    plane.events(vec![gone]).await;
    let gone = plane
        .certify(&plane.token("cart-0", "cart"), request())
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn a_request_that_is_none_is_refused() {
    let plane = Plane::with_shop(QUIET).await;
    let refused = plane
        .certify(&plane.token("cart-0", "cart"), b"nonsense".to_vec())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let long = plane
        .certify(&plane.token("cart-0", "cart"), vec![0; 100_000])
        .await
        .unwrap_err();
    assert_eq!(long.code(), Code::OutOfRange);
}

#[tokio::test]
async fn before_the_source_was_read_nobody_is_known() {
    let plane = Plane::start(QUIET).await;
    let early = plane
        .certify(&plane.token("cart-0", "cart"), request())
        .await
        .unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
}
