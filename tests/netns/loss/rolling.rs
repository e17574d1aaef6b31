//! Pods are replaced under load: nobody notices.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval},
};
use weft_tests::{
    traffic::{self, Answer, Application, Load, One, Two},
    wait,
    world::{self, Pod, World},
};

use super::{PORT, ms};

/// Lives for a while after SIGTERM, as an application that finishes its work.
fn lingering(seconds: &str) -> [String; 3] {
    let script = format!("trap 'sleep {seconds}; exit 0' TERM; while :; do sleep 0.02; done");
    ["sh".to_owned(), "-c".to_owned(), script]
}

struct Running {
    // Ends after its pod, as its sockets are the test's.
    pod: Option<Pod>,
    application: Application,
    /// Of its requests, those over gRPC.
    calls: Arc<AtomicU64>,
}

impl Running {
    fn start(world: &World, name: &str, seconds: &str) -> Self {
        let pod = world.pod(name).run(lingering(seconds));
        let said = name.to_owned();
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let application = Application::start(pod.listen(PORT), move |asked| {
            let is_grpc = asked
                .field("content-type")
                .is_some_and(|it| it.starts_with("application/grpc"));
            let answer = if is_grpc {
                counted.fetch_add(1, Ordering::SeqCst);
                Answer::grpc(0, said.clone())
            } else {
                Answer::ok(said.clone())
            };
            answer.after(ms(if asked.path == "/slow" { 400 } else { 1 }))
        });
        Self {
            pod: Some(pod),
            application,
            calls,
        }
    }

    /// Requests over HTTP/1, and calls of gRPC.
    fn served(&self) -> (u64, u64) {
        // What comes in between is one request more.
        let calls = self.calls.load(Ordering::SeqCst);
        (self.application.requests().saturating_sub(calls), calls)
    }

    fn stop(mut self) {
        let status = self.pod.take().unwrap().stop().status;
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

#[test]
fn backends_are_replaced_under_load_without_an_error_of_the_mesh() {
    if !world::possible() {
        return;
    }
    for workers in ["1", "4"] {
        let world = World::with(
            true,
            &world::service("shop/web", &[PORT]),
            &[("WEFT_WORKERS", workers)],
        );
        let mut running: Vec<_> = (0..2)
            .map(|it| Running::start(&world, &format!("shop/web-{it}"), "0.4"))
            .collect();
        let client = world.idle("shop/client-0");
        let to = SocketAddr::new(client.resolve("web"), PORT);
        let stop = AtomicBool::new(false);
        let tally = std::thread::scope(|scope| {
            let calls = scope.spawn(|| grpc(&client, to, &stop));
            let (tally, ()) = traffic::during(&client, &Load::new(to), || {
                let work = || {
                    for number in 2..5 {
                        let next = Running::start(&world, &format!("shop/web-{number}"), "0.4");
                        wait::until("requests and calls to the new pod", || {
                            let (requests, calls) = next.served();
                            (requests > 20 && calls > 20).then_some(())
                        });
                        running.push(next);
                        running.remove(0).stop();
                    }
                };
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                stop.store(true, Ordering::SeqCst);
                done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            });
            calls.join().unwrap();
            tally
        });
        tally.assert_flawless();
        assert!(tally.bodies.len() == 5, "{:?}", tally.bodies);
    }
}

/// gRPC calls, a thousand a second at the most so that pods have the machine too,
/// over connections that are opened anew where they are retired. Any failure
/// panics.
fn grpc(client: &Pod, to: SocketAddr, stop: &AtomicBool) {
    traffic::run(client, || async move {
        let fields = [
            ("content-type", "application/grpc".to_owned()),
            ("te", "trailers".to_owned()),
        ];
        let mut pace = interval(ms(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::SeqCst) {
            let (two, drive) = Two::open(TcpStream::connect(to).await.unwrap())
                .await
                .unwrap();
            let calling = async {
                while !stop.load(Ordering::SeqCst) {
                    pace.tick().await;
                    let called = two
                        .call("/shop.Web/Get", &fields, Some(Bytes::from_static(b"12345")))
                        .await;
                    let called = called.unwrap_or_else(|error| panic!("{error}"));
                    assert_eq!(called.grpc_status(), Some(0), "{called:?}");
                }
            };
            tokio::select! { () = calling => {} () = drive => {} }
        }
    });
}

#[test]
fn a_draining_pod_finishes_serves_and_calls() {
    if !world::possible() {
        return;
    }
    let manifests = format!(
        "{}{}",
        world::service("shop/web", &[PORT]),
        world::service("shop/db", &[PORT]).replacen(&world::namespace("shop"), "", 1)
    );
    let world = World::new(&manifests);
    let web = Running::start(&world, "shop/web-0", "2");
    let db = Running::start(&world, "shop/db-0", "0");
    let client = world.idle("shop/client-0");
    let web_pod = web.pod.as_ref().unwrap();
    let (to_web, to_db) = (
        SocketAddr::new(client.resolve("web"), PORT),
        SocketAddr::new(web_pod.resolve("db"), PORT),
    );
    // The pod's own address: a caller that has not heard of the drain.
    let to_pod = SocketAddr::new(web_pod.address(), PORT);
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            traffic::run(&client, || async move {
                let mut one = One::new(to_pod);
                let warm = one.get("/").await.unwrap();
                assert_eq!(warm.field("connection"), None);
                one.get("/slow").await.unwrap()
            })
        });
        wait::until("the slow request", || {
            (web.application.requests() == 2).then_some(())
        });
        web_pod.signal(Signal::SIGTERM);
        // Draining: its outbound side works on.
        wait::until("the drain", || {
            let ready = format!("http://{}/ready", SocketAddr::new(web_pod.address(), 15021));
            let said = web_pod.output(["curl", "--silent", &ready]).stdout();
            said.contains("\"draining\"").then_some(())
        });
        calls_go_on(web_pod, to_db);
        // And its inbound side.
        let reply = traffic::run(&client, || async move {
            One::new(to_pod).get("/").await.unwrap()
        });
        assert_eq!(reply.status, 200, "{}", reply.head);
        slow.join().unwrap()
    });
    assert_eq!((slow.status, slow.text().as_str()), (200, "shop/web-0"));
    // The last one serves for as long as it drains; then there is none.
    wait::until("nobody to serve", || {
        let reply = traffic::run(&client, || async move {
            One::new(to_web).get("/").await.unwrap()
        });
        reply.head.contains("no-endpoints").then_some(())
    });
    web.stop_ended();
    db.stop();
}

/// Calls over connections that are kept and over new ones, of either version:
/// none fails, and none of those that are kept is retired.
fn calls_go_on(pod: &Pod, to: SocketAddr) {
    traffic::run(pod, || async move {
        let open = async || {
            let stream = TcpStream::connect(to).await.unwrap();
            Two::open(stream).await.unwrap()
        };
        let mut one = One::new(to);
        let (two, drive) = open().await;
        let calling = async {
            for _ in 0..20 {
                let kept = one.get("/").await.unwrap();
                assert_eq!((kept.status, kept.field("connection")), (200, None));
                let new = One::new(to).get("/").await.unwrap();
                assert_eq!(new.status, 200, "{}", new.head);
                let kept = two.call("/", &[], None).await.unwrap();
                assert_eq!(kept.status, 200);
                let (new, drive) = open().await;
                let called = tokio::select! {
                    called = new.call("/", &[], None) => called.unwrap(),
                    () = drive => panic!("a new connection ended before its first answer"),
                };
                assert_eq!(called.status, 200);
            }
        };
        tokio::select! {
            () = calling => {}
            () = drive => panic!("the kept connection was retired"),
        }
    });
}

impl Running {
    /// It was told to stop already.
    fn stop_ended(mut self) {
        let pod = self.pod.take().unwrap();
        assert_eq!(pod.stop().status.code(), Some(0));
    }
}
