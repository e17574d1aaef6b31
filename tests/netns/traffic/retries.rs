//! What is tried again, and what is not, with the reason counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
    task::JoinSet,
};
use weft_tests::{
    traffic::{self, Answer, Called, Load, One, Two},
    world,
};

use super::{Answers, PORT, Shop, always, named, policy, policy_of};

/// Fails as often as told, then answers.
fn failing(times: u64, failure: Answer, then: Answer) -> Answers {
    let left = Arc::new(AtomicU64::new(times));
    Box::new(move |_| {
        let failed = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1));
        if failed.is_ok() {
            failure.clone()
        } else {
            then.clone()
        }
    })
}

fn retry(on: &str) -> String {
    policy(&format!(
        "  retries: {{attempts: 3, retryOn: {on}, backoff: {{base: 1ms, max: 5ms}}, budget: {{percent: 100, minimumPerSecond: 100}}}}\n  circuitBreaking: {{consecutiveFailures: 0}}"
    ))
}

#[test]
fn a_refused_connection_is_tried_on_each_other_endpoint_whatever_the_method() {
    if !world::possible() {
        return;
    }
    // Two pods where nothing listens, one that serves.
    let shop = Shop::new(
        &policy("  circuitBreaking: {consecutiveFailures: 0}"),
        [named(0)],
    );
    let _dead = [shop.world.idle("shop/web-1"), shop.world.idle("shop/web-2")];
    let to = shop.web();
    let statuses = traffic::run(&shop.client, || async move {
        let mut one = One::new(to);
        let mut statuses = Vec::new();
        for _ in 0..30 {
            statuses.push(one.get("/").await.unwrap().status);
            statuses.push(one.post("/", &[b'x'; 1000]).await.unwrap().status);
        }
        statuses
    });
    assert_eq!(statuses, vec![200; 60]);
    assert_eq!(shop.requests(), [60], "each came once");
    let metrics = shop.client.metrics();
    assert!(
        metrics.sum("weft_traffic_retries_total", &[("reason", "unsent")]) > 0.0,
        "{}",
        &*metrics
    );
}

#[test]
fn statuses_are_retried_by_policy_for_idempotent_methods_alone() {
    if !world::possible() {
        return;
    }
    let answers = [failing(1, Answer::status(503, "no"), Answer::ok("yes"))];
    let shop = Shop::new(&retry("{statusCodes: [503]}"), answers);
    let to = shop.web();
    let (get, put, post) = traffic::run(&shop.client, || async move {
        let mut one = One::new(to);
        let get = one.get("/").await.unwrap().status;
        let put = one
            .ask(b"PUT / HTTP/1.1\r\nhost: app\r\ncontent-length: 2\r\n\r\nhi")
            .await
            .unwrap();
        (get, put.status, one.post("/", b"x").await.unwrap().status)
    });
    assert_eq!((get, put, post), (200, 200, 200));
    assert_eq!(shop.requests(), [4]);

    let shop = Shop::new(
        &retry("{statusCodes: [503]}"),
        [always(Answer::status(503, "no"))],
    );
    let to = shop.web();
    let post = traffic::run(&shop.client, || async move {
        One::new(to).post("/", b"x").await.unwrap()
    });
    assert_eq!(post.status, 503);
    assert_eq!(post.field("proxy-status"), None, "it is the application's");
    assert_eq!(shop.requests(), [1]);
    let get = traffic::run(&shop.client, || async move {
        One::new(to).get("/").await.unwrap()
    });
    assert_eq!((get.status, get.text().as_str()), (503, "no"));
    assert_eq!(shop.requests(), [5]);
    let metrics = shop.client.metrics();
    let not = |reason| metrics.sum("weft_traffic_not_retried_total", &[("reason", reason)]);
    assert_eq!(not("not-idempotent"), 1.0, "{}", &*metrics);
    assert_eq!(not("attempts-spent"), 1.0, "{}", &*metrics);
}

#[test]
fn a_body_is_replayed_up_to_64_kib_and_no_further() {
    if !world::possible() {
        return;
    }
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sizes = Arc::clone(&seen);
    let answers: Answers = Box::new(move |asked| {
        let mut sizes = sizes.lock().unwrap();
        sizes.push(asked.body);
        if sizes.len() % 2 == 1 {
            Answer::status(503, "no")
        } else {
            Answer::ok("yes")
        }
    });
    let shop = Shop::new(&retry("{statusCodes: [503]}"), [answers]);
    let to = shop.web();
    let put = |size: usize| {
        let mut request =
            format!("PUT / HTTP/1.1\r\nhost: app\r\ncontent-length: {size}\r\n\r\n").into_bytes();
        request.resize(request.len() + size, b'x');
        traffic::run(&shop.client, || async move {
            One::new(to).ask(&request).await.unwrap().status
        })
    };
    assert_eq!(put(64 * 1024), 200);
    assert_eq!(put(65 * 1024), 503);
    assert_eq!(*seen.lock().unwrap(), [64 * 1024, 64 * 1024, 65 * 1024]);
    let metrics = shop.client.metrics();
    let labels = [("reason", "body-too-large")];
    assert_eq!(
        metrics.sum("weft_traffic_not_retried_total", &labels),
        1.0,
        "{}",
        &*metrics
    );
}

#[test]
fn a_budget_bounds_what_retries_add_to_a_failing_service() {
    if !world::possible() {
        return;
    }
    let policy = policy(
        "  retries: {attempts: 3, retryOn: {statusCodes: [503]}, backoff: {base: 1ms, max: 1ms}, budget: {percent: 20, minimumPerSecond: 1}}\n  circuitBreaking: {consecutiveFailures: 0}",
    );
    for workers in ["1", "4"] {
        let failing = (0..2).map(|_| always(Answer::status(503, "no")));
        let shop = Shop::with(&policy, &[("WEFT_WORKERS", workers)], failing);
        let mut plan = Load::new(shop.web());
        (plan.connections, plan.requests, plan.think) = (8, Some(125), Duration::ZERO);
        let tally = traffic::load(&shop.client, &plan);
        assert_eq!(tally.status(503), 1000, "{:?}", tally.statuses);
        let arrived: u64 = shop.requests().iter().sum();
        // 20 % and the floor of the ten seconds' window.
        assert!(
            (1190..=1210).contains(&arrived),
            "{workers} workers: {arrived}"
        );
        let metrics = shop.client.metrics();
        let labels = [("reason", "budget-spent")];
        let not = metrics.sum("weft_traffic_not_retried_total", &labels);
        assert!(not >= 790.0, "{workers} workers: {not}");
    }
}

/// A call of its own connection.
fn call(shop: &Shop, body: usize) -> Called {
    let to = shop.web();
    traffic::run(&shop.client, || async move {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let (two, drive) = Two::open(stream).await.unwrap();
        let fields = [
            ("content-type", "application/grpc".to_owned()),
            ("te", "trailers".to_owned()),
        ];
        tokio::select! {
            called = two.call("/shop.Cart/Add", &fields, Some(Bytes::from(vec![0; body]))) => called.unwrap(),
            () = drive => panic!("the connection ended"),
        }
    })
}

#[test]
fn grpc_unavailable_is_retried_wherever_it_stands() {
    if !world::possible() {
        return;
    }
    let kinds = [
        ("in the head", Answer::grpc_head(14)),
        ("in trailers", Answer::grpc(14, "")),
        ("after empty data", Answer::grpc(14, "").pause(super::ms(5))),
    ];
    for (what, failure) in kinds {
        let answers = [failing(1, failure, Answer::grpc(0, "fine"))];
        let shop = Shop::new(&retry("{grpcStatuses: [UNAVAILABLE]}"), answers);
        let called = call(&shop, 100);
        assert_eq!(
            (called.grpc_status(), called.body.as_slice()),
            (Some(0), &b"fine"[..]),
            "{what}"
        );
        assert_eq!(shop.requests(), [2], "{what}");
    }
    // A message came first: it is the caller's.
    let answers = [always(Answer::grpc(14, "part"))];
    let shop = Shop::new(&retry("{grpcStatuses: [UNAVAILABLE]}"), answers);
    assert_eq!(call(&shop, 100).grpc_status(), Some(14));
    assert_eq!(shop.requests(), [1]);
    // Too large to be kept.
    let answers = [always(Answer::grpc_head(14))];
    let shop = Shop::new(&retry("{grpcStatuses: [UNAVAILABLE]}"), answers);
    assert_eq!(call(&shop, 65 * 1024).grpc_status(), Some(14));
    assert_eq!(shop.requests(), [1]);
}

/// An application that asks the next one for each request, and says what that said.
async fn relay(listener: std::net::TcpListener, next: SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let (mut next, mut said) = (One::new(next), Vec::new());
            while stream.read_buf(&mut said).await.is_ok_and(|read| read > 0) {
                if !said.ends_with(b"\r\n\r\n") {
                    continue;
                }
                said.clear();
                let status = next.get("/").await.unwrap().status;
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
    }
}

#[test]
fn retries_of_retries_stay_within_the_budget_of_each_hop() {
    if !world::possible() {
        return;
    }
    const REQUESTS: u64 = 250;
    let retries = "  retries: {attempts: 3, retryOn: {statusCodes: [503]}, backoff: {base: 1ms, max: 1ms}, budget: {percent: 20, minimumPerSecond: 0}}\n  circuitBreaking: {consecutiveFailures: 0}";
    // The client asks `relay`, which asks `web`, which always fails.
    let manifests = [
        policy(retries),
        policy_of("relay", retries),
        world::service("shop/relay", &[PORT]),
    ];
    let shop = Shop::new(&manifests.concat(), [always(Answer::status(503, "no"))]);
    let middle = shop.world.idle("shop/relay-0");
    let listener = middle.listen(PORT);
    let web = SocketAddr::new(middle.resolve("web"), PORT);
    let to = SocketAddr::new(shop.client.resolve("relay"), PORT);
    let (stop, stopped) = oneshot::channel::<()>();
    let statuses = thread::scope(|scope| {
        scope.spawn(|| {
            traffic::run(&middle, || async move {
                tokio::select! {
                    () = relay(listener, web) => {}
                    _ = stopped => {}
                }
            });
        });
        let statuses = traffic::run(&shop.client, || async move {
            let mut one = One::new(to);
            let mut statuses = Vec::new();
            for _ in 0..REQUESTS {
                statuses.push(one.get("/").await.map(|reply| reply.status).ok());
            }
            statuses
        });
        drop(stop);
        statuses
    });
    let failed = statuses.iter().filter(|status| **status == Some(503));
    assert_eq!(failed.count() as u64, REQUESTS, "{statuses:?}");
    // Each hop adds a fifth to what comes to it, and not four times of four.
    let came = shop.requests()[0];
    let most = REQUESTS * 12 / 10 * 12 / 10;
    assert!(came <= most, "{came} of {most}");
    assert!(came > REQUESTS * 13 / 10, "{came}: both hops retried");
    let by_policy = [("reason", "policy")];
    let retried = |pod: &world::Pod| pod.metrics().sum("weft_traffic_retries_total", &by_policy);
    let (first, second) = (retried(&shop.client), retried(&middle));
    assert_eq!(REQUESTS as f64 + first + second, came as f64);
    for pod in [&shop.client, &middle] {
        let spent = [("reason", "budget-spent")];
        let spent = pod.metrics().sum("weft_traffic_not_retried_total", &spent);
        assert!(spent > 0.0, "{}: {spent}", pod.name());
    }
}
