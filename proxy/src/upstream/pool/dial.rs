//! Opens the pool's HTTP/2 connections.
//!
//! Part of `pool`. One dial an endpoint is under way at a time, and everyone who
//! needs it waits for it; it outlives its first caller. Its task drives the
//! connection to its end.

use std::{rc::Rc, sync::Arc};

use crate::{
    discovery::{Backend, Endpoint, EndpointKey},
    outcome::Reason,
    upstream::queue::{self, Entrance, Place},
};

use super::{
    Pool, Wanted,
    lease::Open,
    multiplexed::{self, Dialling, Multiplexed},
};

/// How a dial gets its place.
enum Door {
    Queue(Entrance),
    /// It has it.
    Open(Place),
}

impl Pool {
    /// The dial that is under way, or a new one.
    pub(super) fn dialling(
        self: &Rc<Self>,
        backend: &Backend,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted,
    ) -> Result<Dialling, Reason> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(endpoint.key).or_default();
        if let Some(dialling) = &slot.dialling {
            return Ok(dialling.clone());
        }
        let door = match wanted {
            Wanted::Any | Wanted::New => Door::Queue(queue::connections(backend)),
            // Others may join this dial: it must not be refused where theirs
            // would have waited.
            Wanted::Spare => {
                let place =
                    queue::spare_connection(backend).filter(|_| !slot.is_full(&self.config));
                Door::Open(place.ok_or(Reason::TooManyConnections)?)
            }
        };
        let dialling = self.dial(door, backend, endpoint);
        Ok(slot.dialling.insert(dialling).clone())
    }

    /// Starts a dial that everyone who needs it waits for; it outlives its
    /// first caller.
    fn dial(self: &Rc<Self>, door: Door, backend: &Backend, endpoint: &Arc<Endpoint>) -> Dialling {
        let (tell, dialling) = Dialling::new();
        let number = self.next.get();
        self.next.set(number + 1);
        let target = multiplexed::Target::new(endpoint, backend.policy.timeouts.connect);
        let opening = Rc::clone(self).open(door, target, number, tell);
        self.tasks.borrow_mut().spawn(opening);
        dialling
    }

    /// Opens a connection and drives it to its end.
    async fn open(
        self: Rc<Self>,
        door: Door,
        target: multiplexed::Target,
        number: u64,
        tell: multiplexed::Tell,
    ) {
        let key = target.key();
        let entered = match door {
            Door::Open(place) => Ok(place),
            Door::Queue(entrance) => self.enter(entrance).await,
        };
        let place = match entered {
            Ok(place) => place,
            Err(reason) => {
                self.dialled(key, Err(reason), tell);
                return;
            }
        };
        let places = Arc::clone(place.places());
        let opened =
            multiplexed::open(&self.connector, &self.config, &target, number, places).await;
        if let Some(driver) = self.dialled(key, opened, tell) {
            let retire = || {
                if let Some(slot) = self.slots.borrow_mut().get_mut(&key) {
                    slot.retire(number);
                }
            };
            let gives_way = || {
                let mut slots = self.slots.borrow_mut();
                let slot = slots.get_mut(&key);
                slot.is_some_and(|slot| slot.gives_way_itself(number))
            };
            let open = Open::new(&self.metrics.pool.open);
            let certificates = &self.connector.certificates;
            let cause = driver.run(certificates, retire, gives_way).await;
            self.metrics.pool.closed.inc(cause);
            drop(open);
        }
        drop(place);
    }

    fn dialled(
        &self,
        key: EndpointKey,
        opened: Result<(Multiplexed, multiplexed::Driver), Reason>,
        tell: multiplexed::Tell,
    ) -> Option<multiplexed::Driver> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(key).or_default();
        slot.dialling = None;
        let (result, driver) = match opened {
            Ok((connection, driver)) => {
                slot.connections.push(connection);
                (Ok(()), Some(driver))
            }
            Err(reason) => (Err(reason), None),
        };
        drop(slots);
        tell.end(result);
        driver
    }
}
