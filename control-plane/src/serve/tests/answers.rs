//! How many proxies follow what is answered to a route.

use weft_proto::v1::{self, Kind, watch_request::Message};

use crate::{
    model::{ConditionKind, Match, Name, Object, Parent, Reason, Reference, Route, Rule},
    serve::tests::harness::*,
};

fn route(service: &str) -> Object {
    Object::Route(Route {
        name: Name::new("shop", service),
        generation: 3,
        parents: vec![Parent {
            service: Name::new("shop", service),
            reference: Reference {
                name: service.to_owned(),
                ..Reference::default()
            },
            ..Parent::default()
        }],
        rules: vec![Rule {
            matches: vec![Match::default()],
            ..Rule::default()
        }],
        ..Route::default()
    })
}

/// Of `Programmed`, for the only answer.
async fn programmed(plane: &Plane) -> Option<(bool, Reason, String)> {
    let (_, answers) = plane.hub.ask(|state| state.answers(0)).await.unwrap()?;
    let [(_, verdict)] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    let conditions = &verdict.entries[0].conditions;
    let found = conditions
        .iter()
        .find(|it| it.kind == ConditionKind::Programmed)?;
    Some((found.holds, found.reason, found.message.clone()))
}

fn count(applied: usize, all: usize) -> String {
    format!("{applied} of {all} proxies of this replica apply generation 3")
}

#[tokio::test]
async fn a_proxy_follows_when_it_has_acknowledged_and_a_reject_is_named() {
    let plane = Plane::with_shop(QUIET).await;
    plane.apply(vec![route("cart")]).await;
    let nobody = (true, Reason::NoProxies, count(0, 0));
    assert_eq!(programmed(&plane).await, Some(nobody));

    let mut follower = plane.watch("cart-1").await;
    follower.next().await;
    follower.subscribe(Kind::Service, "shop/cart").await;
    follower.next().await;
    let all = (true, Reason::Programmed, count(1, 1));
    eventually(async || programmed(&plane).await.as_ref() == Some(&all)).await;

    let mut watcher = plane.watch("cart-0").await;
    watcher.next().await;
    watcher.subscribe(Kind::Service, "shop/cart").await;
    let response = watcher.hear().await.unwrap().unwrap();
    let pending = (false, Reason::Pending, count(1, 2));
    assert_eq!(programmed(&plane).await, Some(pending));
    let service = response
        .resources
        .iter()
        .find(|it| {
            it.name
                .as_ref()
                .is_some_and(|it| it.kind() == Kind::Service)
        })
        .unwrap();
    let reject = v1::Reject {
        nonce: response.nonce,
        name: service.name.clone(),
        version: service.version,
        reason: "no such filter".to_owned(),
    };
    watcher.say(Message::Reject(reject)).await;
    let message = format!("{}; shop/cart-0 rejects it: no such filter", count(1, 2));
    let rejected = (false, Reason::Rejected, message);
    eventually(async || programmed(&plane).await.as_ref() == Some(&rejected)).await;

    drop(watcher);
    eventually(async || programmed(&plane).await.as_ref() == Some(&all)).await;
}

#[tokio::test]
async fn what_is_not_accepted_nobody_has_to_follow_and_what_has_not_moved_is_not_told() {
    let plane = Plane::with_shop(QUIET).await;
    plane.apply(vec![route("ghost")]).await;
    assert_eq!(programmed(&plane).await, None);
    let seen = plane.hub.ask(|state| state.answers(0)).await.unwrap();
    let (seen, _) = seen.unwrap();
    let again = plane
        .hub
        .ask(move |state| state.answers(seen))
        .await
        .unwrap();
    assert!(again.is_none());
    plane.apply(vec![route("cart")]).await;
    let again = plane
        .hub
        .ask(move |state| state.answers(seen))
        .await
        .unwrap();
    assert_eq!(again.unwrap().1.len(), 2);
}
