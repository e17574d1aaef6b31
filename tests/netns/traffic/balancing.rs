//! Which endpoint a request goes to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use weft_tests::{
    traffic::{self, Answer, Application, Load, One, Two},
    wait,
    world::{self, World},
};

use super::{PORT, Shop, is_fair, ms, named, policy};

#[test]
fn requests_of_one_connection_are_shared_and_a_slow_endpoint_gets_little() {
    if !world::possible() {
        return;
    }
    let slowness = Arc::new(AtomicU64::new(4));
    let answers = (0..4).map(|number| {
        let slowness = Arc::clone(&slowness);
        Box::new(move |_: &_| {
            let time = match number {
                0 => slowness.load(Ordering::SeqCst),
                _ => 4,
            };
            Answer::ok(number.to_string()).after(ms(time))
        }) as super::Answers
    });
    // One connection is one worker's, however many there are.
    let shop = Shop::new("", answers);
    // Cold endpoints warm up first.
    streams(&shop, 16, 3200);
    // The machine's own noise is latency too, and moves requests as it should,
    // once; the simulation of `upstream::balance` holds equal endpoints within 10 %.
    let fair = 1600.0;
    let (mut rounds, mut took) = (Vec::new(), Duration::ZERO);
    let is_even = (0..3).any(|_| {
        let began = Instant::now();
        let shares = streams(&shop, 16, 6400);
        took = began.elapsed();
        let squares = shares.iter().map(|it| (*it as f64 - fair).powi(2));
        let spread = (squares.sum::<f64>() / 4.0).sqrt();
        rounds.push(shares);
        spread < fair / 4.0
    });
    assert!(is_even, "{rounds:?}");
    // Fifteen times what one takes here, be it the machine that does.
    let usual = u64::try_from(took.as_millis()).unwrap() * 16 / 6400;
    slowness.store(15 * usual.max(4), Ordering::SeqCst);
    let shares = streams(&shop, 16, 3200);
    let fair = 800.0;
    assert!((shares[0] as f64) < fair / 3.0, "{shares:?}");
}

/// So many requests in so many streams at a time of one HTTP/2 connection;
/// what each application got.
fn streams(shop: &Shop, at_a_time: usize, requests: usize) -> Vec<u64> {
    let before = shop.requests();
    let to = shop.web();
    traffic::run(&shop.client, || async {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let (two, drive) = Two::open(stream).await.unwrap();
        let call = |_| async {
            for _ in 0..requests / at_a_time {
                assert_eq!(two.call("/", &[], None).await.unwrap().status, 200);
            }
        };
        tokio::select! {
            () = drive => panic!("the connection ended"),
            _ = futures_util::future::join_all((0..at_a_time).map(call)) => {}
        }
    });
    let after = shop.requests();
    after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

#[test]
fn requests_of_one_http1_connection_are_shared_too() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new("", (0..3).map(named));
    let mut plan = Load::new(shop.web());
    (plan.connections, plan.requests, plan.think) = (1, Some(900), Duration::ZERO);
    let tally = traffic::load(&shop.client, &plan);
    tally.assert_flawless();
    // Nothing is in flight when the next is chosen: what is measured decides,
    // and so does the machine's noise.
    for (body, share) in &tally.bodies {
        assert!(is_fair(*share, 300.0, 150.0), "{body}: {:?}", tally.bodies);
    }
    assert_eq!(tally.bodies.len(), 3);
}

#[test]
fn round_robin_is_exact_over_workers() {
    if !world::possible() {
        return;
    }
    for workers in ["1", "4"] {
        let policy = policy("  loadBalancing: {algorithm: RoundRobin}");
        let shop = Shop::with(&policy, &[("WEFT_WORKERS", workers)], (0..3).map(named));
        let mut plan = Load::new(shop.web());
        (plan.connections, plan.requests, plan.think) = (6, Some(100), Duration::ZERO);
        traffic::load(&shop.client, &plan).assert_flawless();
        assert_eq!(shop.requests(), [200, 200, 200], "{workers} workers");
    }
}

#[test]
fn weights_of_pods_are_exact_over_their_sum() {
    if !world::possible() {
        return;
    }
    let weighted = |number: usize, weight: u32| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-{number}, namespace: shop, labels: {{app: web}}, annotations: {{weft.dev/weight: '{weight}'}}}}\nspec: {{containers: [{{name: app, image: none}}]}}\n---\n"
        )
    };
    let manifests = format!(
        "{}{}{}",
        policy("  loadBalancing: {algorithm: Weighted}"),
        weighted(0, 1),
        weighted(1, 3)
    );
    let shop = Shop::new(&manifests, (0..2).map(named));
    let mut plan = Load::new(shop.web());
    (plan.connections, plan.requests, plan.think) = (4, Some(100), Duration::ZERO);
    traffic::load(&shop.client, &plan).assert_flawless();
    assert_eq!(shop.requests(), [100, 300]);
}

fn split(first: u32, second: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: split, namespace: shop}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, name: web}}]\n  rules:\n  - backendRefs:\n    - {{name: one, port: {PORT}, weight: {first}}}\n    - {{name: two, port: {PORT}, weight: {second}}}\n---\n"
    )
}

#[test]
fn a_routes_weights_are_exact_and_an_edit_holds_within_a_second() {
    if !world::possible() {
        return;
    }
    let manifests: String = ["shop/web", "shop/one", "shop/two"]
        .map(|name| world::service(name, &[PORT]).replacen(&world::namespace("shop"), "", 1))
        .concat();
    let manifests = format!("{}{manifests}", world::namespace("shop"));
    let world = World::with(true, &manifests, &[("WEFT_WORKERS", "4")]);
    world.write_manifest("route.yaml", &split(90, 10));
    let (one, two) = (world.idle("shop/one-0"), world.idle("shop/two-0"));
    let _one = Application::start(one.listen(PORT), named(1));
    let _two = Application::start(two.listen(PORT), named(2));
    let client = world.idle("shop/client-0");
    let to = std::net::SocketAddr::new(client.resolve("web"), PORT);
    let mut plan = Load::new(to);
    (plan.connections, plan.requests, plan.think) = (4, Some(100), Duration::ZERO);
    let tally = traffic::load(&client, &plan);
    tally.assert_flawless();
    assert_eq!((tally.body("1"), tally.body("2")), (360, 40));

    // Everything to the other side; the first answer of it ends the wait.
    let began = Instant::now();
    world.write_manifest("route.yaml", &split(0, 1));
    let moved = traffic::run(&client, || async move {
        let mut one = One::new(to);
        let mut others = 0;
        // Ten in a row: the tenth part went there before.
        while others < 10 {
            let reply = one.get("/").await.unwrap();
            assert_eq!(reply.status, 200, "{}", reply.head);
            others = if reply.text() == "2" { others + 1 } else { 0 };
            assert!(began.elapsed() < wait::PATIENCE);
        }
        began.elapsed()
    });
    assert!(moved < ms(1000), "{moved:?}");
}

#[test]
fn a_new_endpoint_gets_requests_at_once_and_a_removed_one_none() {
    if !world::possible() {
        return;
    }
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec:\n  ports: [{name: http, port: 8080}]\n---\n";
    let slice = |addresses: &[std::net::IpAddr]| {
        let endpoints: String = addresses
            .iter()
            .map(|it| format!("- addresses: ['{it}']\n  conditions: {{ready: true}}\n"))
            .collect();
        let family = if addresses.iter().any(std::net::IpAddr::is_ipv6) {
            "IPv6"
        } else {
            "IPv4"
        };
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\naddressType: {family}\nports: [{{name: http, port: 8080}}]\nendpoints:\n{endpoints}"
        )
    };
    let world = World::new(&format!("{}{service}", world::namespace("shop")));
    let pods = [world.idle("shop/a-0"), world.idle("shop/b-0")];
    let applications: Vec<_> = (0..)
        .zip(&pods)
        .map(|(number, pod)| Application::start(pod.listen(PORT), named(number)))
        .collect();
    world.write_manifest("slice.yaml", &slice(&[pods[0].address()]));
    let client = world.idle("shop/client-0");
    let to = std::net::SocketAddr::new(client.resolve("web"), PORT);
    wait::until("the first endpoint", || {
        let reply = traffic::run(&client, || async move { One::new(to).get("/").await });
        (reply.ok()?.status == 200).then_some(())
    });
    let mut fastest = Duration::MAX;
    for round in 0..6 {
        // Back and forth; each time the new one alone.
        let number = (round + 1) % 2;
        let wanted = number.to_string();
        let (rename, text) = (&world, slice(&[pods[number].address()]));
        let took = traffic::run(&client, || async move {
            let mut one = One::new(to);
            one.get("/").await.unwrap();
            rename.write_manifest("slice.yaml", &text);
            let began = Instant::now();
            loop {
                let reply = one.get("/").await.unwrap();
                assert_eq!(reply.status, 200, "{}", reply.head);
                if reply.text() == wanted {
                    return began.elapsed();
                }
                assert!(began.elapsed() < wait::PATIENCE);
            }
        });
        fastest = fastest.min(took);
        let before = applications[1 - number].requests();
        let mut plan = Load::new(to);
        (plan.connections, plan.requests, plan.think) = (4, Some(10), Duration::ZERO);
        traffic::load(&client, &plan).assert_flawless();
        assert_eq!(
            applications[1 - number].requests(),
            before,
            "a removed endpoint got requests"
        );
    }
    // The best of them: the machine is shared.
    assert!(fastest < ms(50), "{fastest:?}");
}
