use super::{entries::text, *};
use crate::{
    cluster::fake::Fake,
    index::Index,
    model::{
        CONTROLLER, Entry, Event, Match, Object, Parent, Reference, Route, Rule, Service,
        ServicePort,
    },
    runtime::{self, Task},
    serve::{hub::State, metrics::Metrics},
};

const PATH: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart";
const STATUS: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart/status";
const NOW: &str = "2027-01-15T08:00:00Z";

fn reference() -> Reference {
    Reference {
        group: Some(String::new()),
        kind: Some("Service".to_owned()),
        name: "cart".to_owned(),
        port: Some(80),
        ..Reference::default()
    }
}

fn verdict(generation: i64, holds: bool) -> Verdict {
    let condition = Condition {
        kind: ConditionKind::Accepted,
        holds,
        reason: if holds {
            Reason::Accepted
        } else {
            Reason::NoMatchingParent
        },
        message: "said".to_owned(),
    };
    Verdict {
        uid: String::new(),
        generation,
        entries: vec![Entry {
            reference: reference(),
            conditions: vec![condition],
        }],
    }
}

fn counted(applied: usize, reason: Reason) -> Verdict {
    let mut verdict = verdict(1, true);
    verdict.entries[0].conditions.push(Condition {
        kind: ConditionKind::Programmed,
        holds: reason == Reason::Programmed,
        reason,
        message: format!("{applied} of 3"),
    });
    verdict
}

fn condition(kind: &str, status: &str, generation: i64, since: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": "Accepted", "message": "said",
        "observedGeneration": generation, "lastTransitionTime": since,
    })
}

fn entry(controller: &str, conditions: &[Value]) -> Value {
    json!({
        "parentRef": {"group": "", "kind": "Service", "name": "cart", "port": 80},
        "controllerName": controller, "conditions": conditions,
    })
}

fn http(status: &Value, verdict: Option<&Verdict>) -> Option<Vec<Value>> {
    merged(Kind::HttpRoute, status, verdict, NOW)
}

const BEFORE: &str = "2026-01-01T00:00:00Z";

#[test]
fn an_answer_stands_beside_those_of_others() {
    let others = entry(
        "example.com/gateway",
        &[condition("Accepted", "True", 1, BEFORE)],
    );
    let list = http(&json!({"parents": [others]}), Some(&verdict(7, true))).unwrap();
    let ours = entry(CONTROLLER, &[condition("Accepted", "True", 7, NOW)]);
    assert_eq!(list, [others, ours]);
}

#[test]
fn what_already_stands_there_is_not_written() {
    let ours = entry(CONTROLLER, &[condition("Accepted", "True", 7, BEFORE)]);
    let others = entry("example.com/gateway", &[]);
    let status = json!({"parents": [ours, others]});
    assert_eq!(http(&status, Some(&verdict(7, true))), None);
    assert_eq!(http(&Value::Null, None), None);
}

/// Condition.lastTransitionTime: when the status changed, not the rest.
#[test]
fn the_time_of_a_transition_moves_with_the_status_alone() {
    let ours = entry(CONTROLLER, &[condition("Accepted", "True", 7, BEFORE)]);
    let status = json!({"parents": [ours]});
    for (verdict, since) in [(verdict(8, true), BEFORE), (verdict(7, false), NOW)] {
        let list = http(&status, Some(&verdict)).unwrap();
        assert_eq!(list[0]["conditions"][0]["lastTransitionTime"], since);
        let generation = list[0]["conditions"][0]["observedGeneration"].as_i64();
        assert_eq!(generation, Some(verdict.generation));
    }
}

/// A newer replica has judged a newer object.
#[test]
fn a_condition_of_a_greater_generation_stays() {
    let ours = entry(CONTROLLER, &[condition("Accepted", "False", 9, BEFORE)]);
    let status = json!({"parents": [ours]});
    assert_eq!(http(&status, Some(&verdict(8, true))), None);
}

#[test]
fn conditions_of_other_types_stay_and_ours_that_hold_no_longer_go() {
    let theirs = condition("example.com/Audited", "True", 1, BEFORE);
    let partly = condition("PartiallyInvalid", "True", 6, BEFORE);
    let accepted = condition("Accepted", "True", 6, BEFORE);
    let ours = entry(CONTROLLER, &[accepted, partly, theirs.clone()]);
    let list = http(&json!({"parents": [ours]}), Some(&verdict(7, true))).unwrap();
    let kept = [condition("Accepted", "True", 7, BEFORE), theirs];
    assert_eq!(list, [entry(CONTROLLER, &kept)]);
}

#[test]
fn an_answer_to_a_parent_that_is_gone_is_taken_back() {
    let ours = entry(CONTROLLER, &[condition("Accepted", "True", 7, BEFORE)]);
    let others = entry("example.com/gateway", &[]);
    let status = json!({"parents": [ours, others]});
    assert_eq!(http(&status, None).unwrap(), [others]);
}

#[test]
fn a_policy_is_answered_under_ancestors() {
    let list = merged(
        Kind::BackendPolicy,
        &Value::Null,
        Some(&verdict(1, true)),
        NOW,
    )
    .unwrap();
    assert_eq!(list[0]["ancestorRef"]["name"], "cart");
    assert_eq!(list_name(Kind::BackendPolicy), "ancestors");
}

#[tokio::test(start_paused = true)]
async fn counts_are_written_at_most_every_ten_seconds_and_all_else_at_once() {
    let now = Instant::now() + Duration::from_secs(100);
    let ago = |seconds| Some(now - Duration::from_secs(seconds));
    let said = |counts, failed| Said {
        verdict: Some(counted(1, Reason::Pending)),
        counts,
        failed,
    };
    let same = counted(1, Reason::Pending);
    let more = counted(2, Reason::Pending);
    let all = counted(3, Reason::Programmed);
    let rejected = counted(1, Reason::Rejected);
    for (answer, said, due) in [
        (Some(&same), None, true),
        (None, None, false),
        (Some(&same), Some(said(None, None)), false),
        (Some(&more), Some(said(None, None)), true),
        (Some(&more), Some(said(ago(9), None)), false),
        (Some(&all), Some(said(ago(9), None)), false),
        (Some(&all), Some(said(ago(10), None)), true),
        (Some(&rejected), Some(said(ago(1), None)), true),
        (Some(&verdict(2, true)), Some(said(ago(1), None)), true),
        // Taken back.
        (None, Some(said(ago(1), None)), true),
        // Not before it may work again.
        (Some(&same), Some(said(None, ago(4))), false),
        (Some(&same), Some(said(None, ago(5))), true),
    ] {
        assert_eq!(
            is_due(said.as_ref(), answer, now),
            due,
            "{answer:?} after {said:?}"
        );
    }
}

struct World {
    fake: Fake,
    hub: Hub,
    holds: watch::Sender<bool>,
    _tasks: [Task; 2],
}

/// `shop/cart` and its route, known to the hub and stored.
async fn world() -> World {
    let fake = Fake::default();
    fake.put(
        PATH,
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "cart", "namespace": "shop", "generation": 4},
            "spec": {},
        }),
    );
    let state = State::new(Index::new(&[]), "cluster.local", [].into(), Metrics::new());
    let (hub, run) = Hub::new(state);
    let running = runtime::spawn(run);
    let cart = Service {
        name: Name::new("shop", "cart"),
        addresses: ["10.96.0.1".parse().unwrap()].into(),
        ports: vec![ServicePort {
            port: 80,
            ..ServicePort::default()
        }],
        ..Service::default()
    };
    let events = vec![
        Event::Apply(Object::Service(cart)),
        Event::Apply(Object::Route(route(4))),
    ];
    let told = hub.ask(|state| {
        state.apply(events);
        state.synced();
    });
    told.await.unwrap();
    let (holds, holding) = watch::channel(false);
    let writer = Writer {
        cluster: fake.cluster(),
        clock: Wall::fixed(Duration::from_secs(1_800_000_000)),
        hub: hub.clone(),
        holds: holding,
    };
    World {
        fake,
        hub,
        holds,
        _tasks: [running, runtime::spawn(writer.run())],
    }
}

fn route(generation: i64) -> Route {
    Route {
        name: Name::new("shop", "cart"),
        generation,
        parents: vec![Parent {
            service: Name::new("shop", "cart"),
            port: Some(80),
            reference: reference(),
            ..Parent::default()
        }],
        rules: vec![Rule {
            matches: vec![Match::default()],
            ..Rule::default()
        }],
        ..Route::default()
    }
}

impl World {
    /// After this time; the writer has done what was due by then.
    async fn after(&self, seconds: u64) -> Value {
        sleep(Duration::from_secs(seconds) + Duration::from_millis(1)).await;
        self.fake.object(PATH).unwrap()["status"].clone()
    }

    async fn apply(&self, event: Event) {
        self.hub
            .ask(|state| state.apply(vec![event]))
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_is_answered_by_the_holder_alone_and_within_two_seconds() {
    let world = world().await;
    assert_eq!(world.after(60).await, Value::Null);
    world.holds.send_replace(true);
    let status = world.after(2).await;
    let entry = &status["parents"][0];
    assert_eq!(entry["controllerName"], "weft.dev/mesh");
    let reference = json!({"group": "", "kind": "Service", "name": "cart", "port": 80});
    assert_eq!(entry["parentRef"], reference);
    let told: Vec<_> = entry["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            (
                text(it, "type"),
                text(it, "status"),
                text(it, "reason"),
                it["observedGeneration"].as_i64(),
            )
        })
        .collect();
    let expected = [
        ("Accepted", "True", "Accepted", Some(4)),
        ("ResolvedRefs", "True", "ResolvedRefs", Some(4)),
        ("weft.dev/Programmed", "True", "NoProxies", Some(4)),
    ];
    assert_eq!(told, expected);
    assert_eq!(
        entry["conditions"][0]["lastTransitionTime"],
        "2027-01-15T08:01:00Z"
    );
    world.after(60).await;
    assert_eq!(world.fake.count(STATUS), 1, "nothing is written twice");

    world.fake.put(
        PATH,
        json!({
            "metadata": {"name": "cart", "namespace": "shop", "generation": 5}, "status": status,
        }),
    );
    world.apply(Event::Apply(Object::Route(route(5)))).await;
    let status = world.after(2).await;
    assert_eq!(
        status["parents"][0]["conditions"][0]["observedGeneration"],
        5
    );

    world.holds.send_replace(false);
    world
        .apply(Event::Delete(Key {
            kind: Kind::Service,
            name: Name::new("shop", "cart"),
        }))
        .await;
    world.after(60).await;
    assert_eq!(world.fake.count(STATUS), 2);
    world.holds.send_replace(true);
    let status = world.after(2).await;
    assert_eq!(
        status["parents"][0]["conditions"][0]["reason"],
        "NoMatchingParent"
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_tried_again_and_a_deleted_object_is_left_alone() {
    let world = world().await;
    world.fake.fail(STATUS, 500);
    world.holds.send_replace(true);
    assert_eq!(world.after(2).await, Value::Null);
    world.fake.heal();
    let status = world.after(6).await;
    assert_eq!(status["parents"][0]["conditions"][0]["reason"], "Accepted");
    // Its parents are gateways now.
    let edge = Route {
        parents: Vec::new(),
        ..route(5)
    };
    world.apply(Event::Apply(Object::Route(edge))).await;
    assert_eq!(world.after(2).await["parents"], json!([]));
    let writes = world.fake.count(STATUS);
    world.apply(Event::Apply(Object::Route(route(6)))).await;
    world.fake.remove(PATH);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.fake.count(STATUS), writes);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_made_again_is_answered_at_once_although_all_of_it_is_the_same() {
    let world = world().await;
    world.holds.send_replace(true);
    assert_eq!(
        text(&world.after(2).await["parents"][0], "controllerName"),
        CONTROLLER
    );
    // As quick as a script; what was seen of it is one change.
    world.fake.remove(PATH);
    world.fake.put(
        PATH,
        json!({"metadata": {"name": "cart", "namespace": "shop", "generation": 4}}),
    );
    let again = Route {
        uid: "another".to_owned(),
        ..route(4)
    };
    world.apply(Event::Apply(Object::Route(again))).await;
    let status = world.after(2).await;
    assert_eq!(text(&status["parents"][0], "controllerName"), CONTROLLER);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_somebody_overwrote_is_said_again_within_a_minute() {
    let world = world().await;
    world.holds.send_replace(true);
    let status = world.after(2).await;
    let others = entry("example.com/gateway", &[]);
    let metadata = json!({"name": "cart", "namespace": "shop", "generation": 4});
    let overwritten = json!({"metadata": metadata, "status": {"parents": [others]}});
    world.fake.put(PATH, overwritten);
    let repaired = world.after(62).await;
    assert_eq!(repaired["parents"][0], others);
    let (ours, before) = (&repaired["parents"][1], &status["parents"][0]);
    assert_eq!(ours["parentRef"], before["parentRef"]);
    assert_eq!(ours["conditions"][0]["reason"], "Accepted");
    assert_eq!(world.fake.count(STATUS), 2, "and not over and over");
}

#[tokio::test(start_paused = true)]
async fn a_new_holder_takes_back_what_another_said_and_nobody_says_now() {
    let world = world().await;
    let path = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/edge";
    let others = entry("example.com/gateway", &[]);
    let ours = entry(CONTROLLER, &[condition("Accepted", "True", 1, BEFORE)]);
    // Its parents are gateways now.
    let edge = json!({
        "metadata": {"name": "edge", "namespace": "shop", "generation": 2},
        "status": {"parents": [ours, others]},
    });
    world.fake.put(path, edge);
    world.after(60).await;
    assert_eq!(
        world.fake.object(path).unwrap()["status"]["parents"][0],
        ours
    );
    world.holds.send_replace(true);
    world.after(2).await;
    let status = world.fake.object(path).unwrap()["status"].clone();
    assert_eq!(status["parents"], json!([others]));
}
