//! Whose connection leaves when places are short, and who never waits for one.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::*;
use crate::{
    clock::Wall,
    discovery::{BackendPolicy, EndpointState, Limits, samples},
    sock::{Liveness, Source},
    telemetry::Registry,
    tls::{authority::Authority, certs::Store},
};

/// A pool, and servers without a proxy that speak HTTP/2.
struct World {
    pool: Rc<Pool>,
    servers: Tasks,
}

impl World {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::register(&mut Registry::new()));
        let authority = Authority::new("root");
        let store = Store::new("cluster.local", authority.bundle(), Wall::default());
        let source = Source {
            inbound: false,
            mark: None,
        };
        let connector = Connector::new(
            source,
            Liveness::default(),
            Arc::new(store),
            Arc::clone(&metrics),
        );
        let config = Config {
            idle_per_endpoint: 8,
            idle_timeout: Duration::from_secs(60),
            connections_per_endpoint: 8,
            streams_per_connection: 1,
            stream_window: 1 << 16,
            connection_window: 1 << 20,
            header_bytes: 1 << 16,
        };
        Self {
            pool: Pool::new(config, connector, metrics),
            servers: Tasks::new(),
        }
    }

    async fn endpoint(&mut self, key: u64) -> Arc<Endpoint> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.servers.spawn(async move {
            let mut connections = Tasks::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while connection.accept().await.is_some() {}
                });
            }
        });
        at(key, address)
    }

    async fn stream(&self, backend: &Backend, endpoint: &Arc<Endpoint>) -> Result<Stream, Reason> {
        let got = self.pool.http2(backend, endpoint, Wanted::Any).await;
        got.map(|(_, stream)| stream)
    }

    fn open(&self) -> usize {
        let slots = self.pool.slots.borrow();
        slots.values().map(|slot| slot.connections.len()).sum()
    }
}

fn at(key: u64, address: SocketAddr) -> Arc<Endpoint> {
    let mut endpoint = samples::endpoint(key, 1, EndpointState::Ready, &Arc::default());
    Arc::get_mut(&mut endpoint).unwrap().address = address;
    endpoint
}

fn limited(connections: u32) -> Arc<Backend> {
    let limits = Limits {
        connections: Some(connections),
        requests: None,
        pending: None,
        pending_timeout: Duration::from_secs(10),
    };
    let defaults = BackendPolicy::default();
    samples::backend(BackendPolicy { limits, ..defaults }, &[])
}

#[tokio::test(flavor = "local")]
async fn a_connection_gives_way_when_its_last_stream_ends() {
    let mut world = World::new();
    let (backend, one, other) = (limited(1), world.endpoint(1).await, world.endpoint(2).await);
    let first = world.stream(&backend, &one).await.unwrap();
    // Nobody sweeps here: without the place of the first it would wait in vain.
    let second = world.stream(&backend, &other);
    let ended = async {
        while !queue::is_wanted(&backend.cells.connections) {
            tokio::task::yield_now().await;
        }
        drop(first);
    };
    let (second, ()) = tokio::join!(second, ended);
    assert!(second.is_ok(), "{second:?}");
    assert_eq!(world.open(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_nobody_has_had_yet_is_spared_for_a_while() {
    let mut world = World::new();
    let (backend, one, other) = (limited(1), world.endpoint(1).await, world.endpoint(2).await);
    world
        .pool
        .dialling(&backend, &one, Wanted::Any)
        .unwrap()
        .ended()
        .await
        .unwrap();
    {
        let mut slots = world.pool.slots.borrow_mut();
        let slot = slots.get_mut(&one.key).unwrap();
        assert!(!slot.evict(&backend.cells.connections), "it has just come");
    }
    drop(world.stream(&backend, &one).await.unwrap());
    assert!(world.stream(&backend, &other).await.is_ok());
}

#[tokio::test(flavor = "local")]
async fn a_copy_waits_for_no_place_and_takes_none_from_others() {
    let mut world = World::new();
    let (backend, one, other) = (limited(2), world.endpoint(1).await, world.endpoint(2).await);
    let copy = async |endpoint| {
        let copied = world.pool.http2(&backend, endpoint, Wanted::Spare).await;
        copied.map(|(_, stream)| stream)
    };
    drop(world.stream(&backend, &one).await.unwrap());
    // The last place, and another's idle connection.
    assert_eq!(copy(&other).await.unwrap_err(), Reason::TooManyConnections);
    assert_eq!(world.open(), 1);
    // What is idle already serves it, and its streams are not waited for.
    let held = copy(&one).await.unwrap();
    assert_eq!(copy(&one).await.unwrap_err(), Reason::TooManyConnections);
    drop(held);
    assert!(copy(&one).await.is_ok());
}
