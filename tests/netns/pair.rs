//! The same two pods twice: with a mesh and without, for scripts of bytes.

use std::sync::atomic::{AtomicU16, Ordering};

use weft_tests::{
    raw::{Application, Heard, Message, Step, messages, play},
    world::{self, Pod, World},
};

/// Each script has a port, and so connections, of its own.
const FIRST_PORT: u16 = 9000;
const PORTS: u16 = 64;

pub(crate) struct Side {
    _world: World,
    pub(crate) application: Pod,
    pub(crate) client: Pod,
}

impl Side {
    fn new(meshed: bool, knobs: &[(&str, &str)]) -> Self {
        let ports: Vec<u16> = (FIRST_PORT..FIRST_PORT + PORTS).collect();
        let world = World::with(meshed, &world::service("shop/raw", &ports), knobs);
        let application = world.idle("shop/raw-0");
        let client = world.idle("shop/client-0");
        Self {
            _world: world,
            application,
            client,
        }
    }

    pub(crate) fn run(&self, port: u16, script: &Script) -> Ran {
        let listener = self.application.listen(port);
        let application = Application::start(listener, script.application.clone());
        let heard = play(self.client.connect("raw.shop", port), &script.client);
        Ran {
            client: heard,
            application: application.heard(),
        }
    }
}

/// What client and application say and wait for.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) client: Vec<Step>,
    /// For each connection of the application.
    pub(crate) application: Vec<Vec<Step>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) client: Heard,
    pub(crate) application: Vec<Heard>,
}

impl Ran {
    /// The requests that the application heard, on all its connections.
    pub(crate) fn requests(&self) -> Vec<Message> {
        let no_body = |head: &str| {
            !["content-length", "transfer-encoding"]
                .iter()
                .any(|name| head.to_lowercase().contains(name))
        };
        self.application
            .iter()
            .flat_map(|heard| messages(&heard.bytes, no_body))
            .collect()
    }

    /// The answers that the client heard, interim ones included.
    pub(crate) fn answers(&self) -> Vec<Message> {
        let no_body = |head: &str| {
            let status = head.split_whitespace().nth(1).unwrap_or_default();
            status.starts_with('1') || ["204", "304"].contains(&status)
        };
        messages(&self.client.bytes, no_body)
    }
}

pub(crate) struct Pair {
    pub(crate) meshed: Side,
    pub(crate) plain: Side,
    next: AtomicU16,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(knobs: &[(&str, &str)]) -> Self {
        Self {
            meshed: Side::new(true, knobs),
            plain: Side::new(false, &[]),
            next: AtomicU16::new(FIRST_PORT),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        let port = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(port < FIRST_PORT + PORTS, "more scripts than ports");
        port
    }

    /// With the mesh, without.
    pub(crate) fn run(&self, script: &Script) -> (Ran, Ran) {
        let port = self.port();
        (self.meshed.run(port, script), self.plain.run(port, script))
    }
}
