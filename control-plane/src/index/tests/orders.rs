//! Property: the state is a function of the objects, and changes are complete.

use proptest::{collection, option, prelude::*, sample::select};

use super::*;
use crate::model::{
    AccessPolicy, AccessRule, AccessTarget, BackendPolicy, BackendPolicyObject, BackendRef,
    Distribution, EndpointSlice, Filter, Hints, Mirror, Namespace, Node, Parent, Protocol, Reason,
    Refused, Route, RouteKind, Rule, ServiceRange, SliceEndpoint,
};

const NAMESPACES: [&str; 2] = ["a", "b"];
const NAMES: [&str; 3] = ["x", "y", "z"];
const IPS: [&str; 5] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.1.0.1",
    "fd00::1",
    "fd00:0:0:1::1",
];
const PORTS: [u16; 4] = [80, 81, 8080, 8081];

fn universe() -> Universe {
    let names = NAMESPACES
        .iter()
        .flat_map(|namespace| NAMES.map(|name| Name::new(namespace, name)));
    Universe {
        names: names.collect(),
        ports: PORTS.to_vec(),
        ips: IPS.iter().map(|text| ip(text)).collect(),
    }
}

fn any_name() -> impl Strategy<Value = Name> {
    (select(&NAMESPACES[..]), select(&NAMES[..]))
        .prop_map(|(namespace, name)| Name::new(namespace, name))
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    select(&IPS[..]).prop_map(ip)
}

fn any_labels() -> impl Strategy<Value = Labels> {
    collection::btree_map(
        select(&["app", "tier"][..]).prop_map(str::to_owned),
        select(&["1", "2"][..]).prop_map(str::to_owned),
        0..=2,
    )
}

fn any_namespace() -> impl Strategy<Value = Object> {
    (select(&NAMESPACES[..]), any::<bool>()).prop_map(|(name, inject)| {
        let said = if inject { "enabled" } else { "disabled" };
        Object::Namespace(Namespace {
            name: name.to_owned(),
            labels: labels(&[("weft.dev/inject", said)]),
        })
    })
}

fn any_service() -> impl Strategy<Value = Object> {
    let target = prop_oneof![
        select(&PORTS[..]).prop_map(TargetPort::Number),
        Just(TargetPort::Named("web".to_owned())),
    ];
    let protocol = select(&[Protocol::Detect, Protocol::Http1, Protocol::Opaque][..]);
    let port = (select(&["http", "tcp"][..]), target, protocol);
    let ports = collection::btree_map(select(&[80u16, 81][..]), port, 0..=2);
    let addresses = collection::btree_set(any_ip(), 0..=2);
    (
        any_name(),
        0..2i64,
        addresses,
        any_labels(),
        ports,
        any::<[bool; 3]>(),
        select(&[Distribution::Anywhere, Distribution::SameNode][..]),
    )
        .prop_map(
            |(name, created_milliseconds, addresses, selector, ports, flags, distribution)| {
                let [publish_not_ready, sticky, own_node_only] = flags;
                Object::Service(Service {
                    name,
                    created_milliseconds,
                    addresses,
                    selector,
                    ports: ports
                        .into_iter()
                        .map(|(port, (name, target, protocol))| ServicePort {
                            name: name.to_owned(),
                            port,
                            target,
                            protocol,
                        })
                        .collect(),
                    publish_not_ready,
                    affinity_seconds: u32::from(sticky),
                    own_node_only,
                    distribution,
                })
            },
        )
}

fn any_slice() -> impl Strategy<Value = Object> {
    let entry = (
        collection::vec(any_ip(), 1..=2),
        option::of(select(&NAMES[..]).prop_map(str::to_owned)),
        any::<[bool; 3]>(),
        select(&["", "here"][..]),
        select(&["", "0", "1"][..]),
        select(&["", "n"][..]),
    );
    let entry = entry.prop_map(
        |(addresses, pod, [ready, serving, terminating], zone, uid, node)| SliceEndpoint {
            addresses,
            pod,
            pod_uid: uid.to_owned(),
            ready,
            serving,
            terminating,
            node: node.to_owned(),
            zone: zone.to_owned(),
            hints: (!zone.is_empty()).then(|| {
                Box::new(Hints {
                    nodes: Vec::new(),
                    zones: vec![zone.to_owned()],
                })
            }),
        },
    );
    let ports = collection::btree_map(
        select(&["http", "tcp"][..]).prop_map(str::to_owned),
        select(&PORTS[..]),
        0..=2,
    );
    (
        any_name(),
        select(&NAMES[..]),
        ports,
        collection::vec(entry, 0..=3),
    )
        .prop_map(|(name, service, ports, endpoints)| {
            Object::EndpointSlice(EndpointSlice {
                name,
                service: service.to_owned(),
                ports,
                endpoints,
            })
        })
}

fn any_pod() -> impl Strategy<Value = Object> {
    let label = || option::of(any::<bool>());
    let port = option::of(select(&PORTS[..]));
    let excluded = collection::btree_set(select(&PORTS[..]), 0..=1);
    let addresses = collection::vec(any_ip(), 0..=2);
    (
        any_name(),
        0..2u8,
        any_labels(),
        addresses,
        [label(), label()],
        any::<[bool; 3]>(),
        port,
        excluded,
        select(&["", "n", "m"][..]),
    )
        .prop_map(
            |(
                name,
                uid,
                labels,
                addresses,
                [injected, asked],
                [ready, terminating, host_network],
                port,
                excluded_ports,
                node,
            )| {
                Object::Pod(Pod {
                    name,
                    uid: uid.to_string(),
                    labels: labels.into(),
                    service_account: "default".to_owned(),
                    addresses,
                    ports: BTreeMap::from_iter(port.map(|port| ("web".to_owned(), port))).into(),
                    injected,
                    asked,
                    host_network,
                    ready,
                    terminating,
                    excluded_ports,
                    node: node.to_owned(),
                    ..Pod::default()
                })
            },
        )
}

fn any_route() -> impl Strategy<Value = Object> {
    let parent =
        (any_name(), option::of(select(&[80u16, 81][..]))).prop_map(|(service, port)| Parent {
            service,
            port,
            ..Parent::default()
        });
    let backend = (any_name(), select(&[80u16, 81][..]))
        .prop_map(|(service, port)| BackendName { service, port });
    let refused = prop::bool::weighted(0.2).prop_map(|refused| {
        refused.then(|| Refused {
            reason: Reason::UnsupportedValue,
            field: "spec".to_owned(),
            message: "is beyond us".to_owned(),
            remedy: "wait".to_owned(),
        })
    });
    (
        any_name(),
        select(&[RouteKind::Http, RouteKind::Grpc][..]),
        0..2i64,
        0..2i64,
        collection::vec(parent, 0..=2),
        collection::vec((backend, any::<bool>()), 0..=2),
        [refused.clone(), refused],
    )
        .prop_map(
            |(
                name,
                kind,
                created_milliseconds,
                generation,
                parents,
                backends,
                [refused, rule_refused],
            )| {
                let mut rule = Rule {
                    refused: rule_refused,
                    ..Rule::default()
                };
                for (backend, mirrored) in backends {
                    match mirrored {
                        true => rule.filters.push(Filter::Mirror(Mirror {
                            backend,
                            invalid: None,
                            numerator: 1,
                            denominator: 1,
                        })),
                        false => rule.backends.push(BackendRef {
                            backend,
                            weight: 1,
                            invalid: None,
                            filters: Vec::new(),
                        }),
                    }
                }
                Object::Route(Route {
                    uid: String::new(),
                    kind,
                    name,
                    created_milliseconds,
                    generation,
                    parents,
                    rules: vec![rule],
                    refused,
                })
            },
        )
}

fn any_backend_policy() -> impl Strategy<Value = Object> {
    let targets = collection::vec(select(&NAMES[..]).prop_map(str::to_owned), 0..=2);
    (any_name(), 0..2i64, targets, 0..3u32).prop_map(
        |(name, created_milliseconds, targets, attempts)| {
            Object::BackendPolicy(BackendPolicyObject {
                uid: String::new(),
                name,
                created_milliseconds,
                generation: 0,
                targets,
                policy: BackendPolicy {
                    attempts,
                    ..BackendPolicy::default()
                },
            })
        },
    )
}

fn any_access_policy() -> impl Strategy<Value = Object> {
    let target = prop_oneof![
        Just(AccessTarget::Namespace),
        any_labels().prop_map(AccessTarget::Selected),
    ];
    let rules = collection::vec(
        any::<bool>().prop_map(|deny| AccessRule {
            deny,
            ..AccessRule::default()
        }),
        0..=2,
    );
    let ports = collection::btree_set(select(&PORTS[..]), 0..=1);
    (
        any_name(),
        collection::vec(target, 1..=2),
        ports,
        option::of(any::<bool>()),
        rules,
    )
        .prop_map(|(name, targets, ports, strict, rules)| {
            Object::AccessPolicy(AccessPolicy {
                uid: String::new(),
                name,
                generation: 0,
                targets,
                ports,
                strict,
                rules,
            })
        })
}

fn any_node() -> impl Strategy<Value = Object> {
    let zone = select(&["", "here", "there"][..]);
    let ranges = collection::vec((any_ip(), select(&[12u8, 24][..])), 0..=2);
    (select(&["n", "m"][..]), zone, ranges).prop_map(|(name, zone, pod_ranges)| {
        Object::Node(Node {
            name: name.to_owned(),
            zone: zone.to_owned(),
            pod_ranges,
        })
    })
}

fn any_service_range() -> impl Strategy<Value = Object> {
    let ranges = collection::vec((any_ip(), select(&[8u8, 24][..])), 0..=2);
    (select(&["n", "m"][..]), ranges).prop_map(|(name, ranges)| {
        Object::ServiceRange(ServiceRange {
            name: name.to_owned(),
            ranges,
        })
    })
}

fn any_object() -> impl Strategy<Value = Object> {
    prop_oneof![
        1 => any_namespace(),
        4 => any_service(),
        4 => any_slice(),
        6 => any_pod(),
        3 => any_route(),
        1 => any_backend_policy(),
        2 => any_access_policy(),
        2 => any_node(),
        1 => any_service_range(),
    ]
}

/// Objects to apply, or to delete by their key.
fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let event =
        (any_object(), prop::bool::weighted(0.25)).prop_map(|(object, delete)| match delete {
            true => Event::Delete(object.key()),
            false => Event::Apply(object),
        });
    collection::vec(event, 0..40)
}

fn survivors(events: &[Event]) -> Vec<Object> {
    let mut objects = BTreeMap::new();
    for event in events {
        match event {
            Event::Apply(object) => objects.insert(object.key(), object.clone()),
            Event::Delete(key) => objects.remove(key),
        };
    }
    objects.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_ends_where_the_final_objects_end(
        (events, shuffled) in any_events().prop_flat_map(|events| {
            let objects = survivors(&events);
            (Just(events), Just(objects).prop_shuffle())
        })
    ) {
        let mut index = Index::default();
        for event in events {
            index.apply(event);
        }
        let universe = universe();
        prop_assert_eq!(View::of(&index, &universe), View::of(&applied(shuffled), &universe));
    }

    #[test]
    fn who_fetches_what_changes_name_knows_everything(events in any_events()) {
        let universe = universe();
        let mut index = Index::default();
        let mut mirror = View::of(&index, &universe);
        for event in events {
            let told = format!("{event:?}");
            let changes = index.apply(event);
            mirror.follow(&index, &changes, &universe);
            let truth = View::of(&index, &universe);
            prop_assert_eq!(&mirror, &truth, "after {} which named {:?}", told, changes);
        }
    }
}
