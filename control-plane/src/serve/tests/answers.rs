//! How many proxies follow what is answered to a route.

use weft_proto::v1::{self, Kind, watch_request::Message};

use crate::{
    index::Index,
    model::{
        ConditionKind, Event, Key, Kind as ModelKind, Match, Name, Object, Parent, Reason,
        Reference, Route, Rule,
    },
    serve::{
        hub::{Followers, State, Summary},
        tests::harness::*,
    },
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
    format!("{applied} of {all} proxies apply generation 3")
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

#[tokio::test(start_paused = true)]
async fn proxies_of_other_replicas_count_when_they_follow_the_same_generation() {
    let roots = [rustls_pki_types::CertificateDer::from(b"a root".to_vec())];
    let metrics = crate::serve::metrics::Metrics::new();
    let mut state = State::new(Index::new(&[]), DOMAIN, roots.into(), metrics);
    let mut events: Vec<_> = shop().into_iter().map(Event::Apply).collect();
    events.push(Event::Apply(route("cart")));
    state.apply(events);
    state.synced();
    let programmed = |state: &State| {
        let (_, answers) = state.answers(0).unwrap();
        let conditions = answers[0].1.entries[0].conditions.clone();
        let found = conditions
            .into_iter()
            .find(|it| it.kind == ConditionKind::Programmed);
        let found = found.unwrap();
        (found.holds, found.reason, found.message)
    };
    let told = |generation, rejected: Option<&str>| {
        let key = Key {
            kind: ModelKind::HttpRoute,
            name: Name::new("shop", "cart"),
        };
        let followers = Followers {
            all: 3,
            applied: 3 - rejected.iter().count(),
            rejected: rejected.map(|why| (Name::new("shop", "web-0"), why.to_owned())),
        };
        Some(Summary {
            services: [(Name::new("shop", "cart"), followers)].into(),
            generations: [(key, generation)].into(),
            ..Summary::default()
        })
    };
    let others = ["b".to_owned()];
    state.expect_replicas(&others);
    // It has only just come.
    let nobody = (true, Reason::NoProxies, count(0, 0));
    assert_eq!(programmed(&state), nobody);
    tokio::time::advance(std::time::Duration::from_secs(30)).await;
    state.expect_replicas(&others);
    let silent = format!("{}; replica b has not told of its proxies", count(0, 0));
    assert_eq!(programmed(&state), (false, Reason::Pending, silent));

    state.reported("b", 1, told(2, Some("of the generation before")));
    state.expect_replicas(&others);
    let pending = (false, Reason::Pending, count(0, 3));
    assert_eq!(programmed(&state), pending);
    state.reported("b", 2, told(3, None));
    let all = (true, Reason::Programmed, count(3, 3));
    assert_eq!(programmed(&state), all);
    state.reported("b", 3, told(3, Some("no such filter")));
    let message = format!("{}; shop/web-0 rejects it: no such filter", count(2, 3));
    assert_eq!(programmed(&state), (false, Reason::Rejected, message));
    // Its proxies are elsewhere by now.
    state.expect_replicas(&[]);
    assert_eq!(programmed(&state), nobody);
}
