//! What a Service asks of balancing, through the sidecars of several pods: the
//! caller's own node alone, its zone first, one endpoint for a caller.

use std::sync::atomic::AtomicU16;

use super::*;
use crate::discovery::LoadBalancing;

/// One of the service's pods, with a sidecar of its own.
pub(super) struct Pod {
    /// Of its addresses: its sidecar's, and after it its application's.
    host: u8,
    node: &'static str,
    zone: &'static str,
}

impl Pod {
    fn sidecar(&self, net: &Net) -> SocketAddr {
        net.at(self.host, 15006)
    }

    fn application(&self, net: &Net) -> SocketAddr {
        net.at(self.host + 1, 8080)
    }

    pub(super) fn endpoint(&self, world: &World, cells: &Arc<BackendCells>) -> Arc<Endpoint> {
        let endpoint = world.endpoint(self.sidecar(&world.net), cells);
        let mut endpoint = Arc::into_inner(endpoint).unwrap();
        endpoint.node = self.node.into();
        endpoint.hints.zones = Arc::new([self.zone.into()]);
        Arc::new(endpoint)
    }
}

/// The caller's sidecar, and three pods of which each answers with a status of
/// its own; nobody listens for one whose status is `ABSENT`.
struct Shop {
    world: World,
    /// What each application answers next, again and again.
    answers: [Arc<AtomicU16>; 3],
}

const ABSENT: u16 = 0;

impl Shop {
    async fn open(mut world: World, statuses: [u16; 3]) -> Self {
        world.pods = [(10, "a", "here"), (20, "b", "here"), (30, "c", "there")]
            .map(|(host, node, zone)| Pod { host, node, zone })
            .into();
        let authority = Authority::new("root");
        let caller = (world.net.caller(), world.net.at(1, 15006), SERVICE);
        let snapshot = world.callers_snapshot();
        world.start(caller, snapshot, authority.store(WEB)).await;
        let answers = statuses.map(|status| Arc::new(AtomicU16::new(status)));
        for (at, answer) in answers.iter().enumerate() {
            if answer.load(Ordering::Relaxed) == ABSENT {
                continue;
            }
            let (host, inbound, application) = {
                let pod = &world.pods[at];
                (
                    pod.host,
                    pod.sidecar(&world.net),
                    pod.application(&world.net),
                )
            };
            world.serve(application, Arc::clone(answer));
            let callee = (world.net.at(host, 15001), inbound, application);
            let snapshot = Snapshot {
                revision: 1,
                workload: Some(Arc::new(world.workload())),
                ..Snapshot::default()
            };
            world.start(callee, snapshot, authority.store(CART)).await;
        }
        Self { world, answers }
    }

    /// The answer to a request on a connection of its own.
    async fn head(&self) -> String {
        let mut caller = self.world.dial().await;
        let request = b"GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
        caller.write_all(request).await.unwrap();
        message(&mut caller).await.unwrap()
    }

    async fn status(&self) -> u16 {
        let head = self.head().await;
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The statuses of so many requests, each once.
    async fn seen(&self, requests: usize) -> Vec<u16> {
        let mut seen = Vec::new();
        for _ in 0..requests {
            seen.push(self.status().await);
        }
        seen.sort_unstable();
        seen.dedup();
        seen
    }
}

impl World {
    /// An application that answers every request with the status of the moment.
    fn serve(&mut self, address: SocketAddr, status: Arc<AtomicU16>) {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        self.tasks.spawn(async move {
            let mut connections = Tasks::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let status = Arc::clone(&status);
                connections.spawn(async move {
                    while message(&mut stream).await.is_some() {
                        let status = status.load(Ordering::Relaxed);
                        let answer = format!("HTTP/1.1 {status} Is\r\ncontent-length: 0\r\n\r\n");
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    fn on(node: &str, zone: &str, change: impl FnOnce(&mut BackendPolicy)) -> Self {
        let mut world = Self::new();
        world.here = Here {
            node: node.into(),
            zone: zone.into(),
        };
        world.policy.load_balancing = LoadBalancing::RoundRobin;
        change(&mut world.policy);
        world
    }
}

const ALL_THERE: [u16; 3] = [210, 211, 212];

#[test]
fn a_service_for_the_own_node_alone_is_answered_by_it_or_refused_by_name() {
    within(async {
        let local = |policy: &mut BackendPolicy| policy.own_node_only = true;
        let shop = Shop::open(World::on("b", "here", local), ALL_THERE).await;
        assert_eq!(shop.seen(12).await, [211]);

        let shop = Shop::open(World::on("elsewhere", "here", local), ALL_THERE).await;
        let head = shop.head().await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 503 "), "{head}");
        let told = "proxy-status: weft-outbound; error=destination_unavailable; details=\"no-local-endpoints\"";
        assert!(head.contains(told), "{head}");

        let mut world = World::on("elsewhere", "here", local);
        world.protocol = Protocol::Opaque;
        let shop = Shop::open(world, ALL_THERE).await;
        let mut caller = shop.world.dial().await;
        // Written or not: it may have been reset already.
        let _ = caller.write_all(b"\x00bytes").await;
        assert!(caller.read_u8().await.is_err());
    });
}

#[test]
fn the_callers_zone_answers_and_others_only_when_it_cannot() {
    within(async {
        let same = |_: &mut BackendPolicy| {};
        let shop = Shop::open(World::on("x", "here", same), ALL_THERE).await;
        assert_eq!(shop.seen(12).await, [210, 211]);
        let shop = Shop::open(World::on("x", "there", same), ALL_THERE).await;
        assert_eq!(shop.seen(6).await, [212]);
        // No hint is for us: all of them.
        let shop = Shop::open(World::on("x", "nowhere", same), ALL_THERE).await;
        assert_eq!(shop.seen(12).await, ALL_THERE);
        // Nobody of the zone is there, and no request is lost.
        let shop = Shop::open(World::on("x", "here", same), [ABSENT, ABSENT, 212]).await;
        assert_eq!(shop.seen(12).await, [212]);
    });
}

#[test]
fn a_caller_stays_with_one_endpoint_and_another_try_does_not_move_it() {
    within(async {
        let sticky = |policy: &mut BackendPolicy| {
            policy.affinity = Some(Duration::from_secs(600));
            policy.retries.attempts = 1;
            policy.retries.status_codes = vec![503];
            // What fails here is about retries, not about the breaker.
            policy.circuit_breaking.consecutive_failures = 0;
        };
        let shop = Shop::open(World::on("x", "", sticky), ALL_THERE).await;
        let first = shop.status().await;
        assert_eq!(shop.seen(12).await, [first]);
        let home = &shop.answers[usize::from(first - 210)];
        home.store(503, Ordering::Relaxed);
        let others = shop.seen(2).await;
        assert!(
            !others.contains(&first) && !others.contains(&503),
            "{others:?}"
        );
        home.store(first, Ordering::Relaxed);
        assert_eq!(shop.seen(12).await, [first]);

        // The same without: each request is balanced by itself.
        let plain = |_: &mut BackendPolicy| {};
        let shop = Shop::open(World::on("x", "", plain), ALL_THERE).await;
        assert_eq!(shop.seen(12).await, ALL_THERE);
    });
}
