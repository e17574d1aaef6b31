//! One pod's change costs that pod, however large the mesh.

use std::time::Duration;

use super::*;

/// On the processor, since a clock would measure who else is on the machine.
fn busy() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = told.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds)
}

#[test]
fn one_pods_change_touches_that_pod_alone_among_100_000() {
    let (services, pods_each) = (10_000u32, 10u32);
    let mut index = Index::default();
    let name_of = |service: u32| format!("shop/s{service}");
    let pod_ip =
        |service: u32, pod: u32| IpAddr::V4((0x0a00_0000 + service * pods_each + pod).into());
    let pod_of = |service: u32, number: u32, ready: bool| Pod {
        ready,
        ..pod(
            &format!("shop/s{service}-{number}"),
            &pod_ip(service, number).to_string(),
            &service.to_string(),
        )
    };
    for number in 0..services {
        let ip = IpAddr::V4((0x6000_0000 + number).into());
        let mut it = service(&name_of(number), &ip.to_string(), &number.to_string());
        it.selector.insert("all".to_owned(), "of-them".to_owned());
        index.apply(Event::Apply(Object::Service(it)));
        for pod in 0..pods_each {
            let mut it = pod_of(number, pod, true);
            Arc::make_mut(&mut it.labels).insert("all".to_owned(), "of-them".to_owned());
            index.apply(Event::Apply(Object::Pod(it)));
        }
    }
    let before = busy();
    let rounds = 100;
    for round in 0..rounds {
        let mut it = pod_of(round * 7, 3, false);
        Arc::make_mut(&mut it.labels).insert("all".to_owned(), "of-them".to_owned());
        let changes = index.apply(Event::Apply(Object::Pod(it)));
        let uid = format!(
            "{}-3/uid-of-{}:8080",
            name_of(round * 7),
            pod_ip(round * 7, 3)
        );
        let expected = [
            Change::Endpoints {
                backend: backend(&name_of(round * 7), 80),
                uid: uid.into(),
            },
            Change::Ip(pod_ip(round * 7, 3)),
            Change::Workload(name(&format!("{}-3", name_of(round * 7)))),
        ];
        assert_eq!(changes, expected);
    }
    let each = (busy() - before) / rounds;
    // A debug build takes a tenth; walking the world would take a hundred times as long.
    assert!(each < Duration::from_millis(1), "{each:?} per change");
}
