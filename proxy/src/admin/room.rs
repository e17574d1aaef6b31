//! Who may hold a connection of one admin port.
//!
//! Anyone in the network can open connections there, and a probe must get
//! through nevertheless. So whoever has not yet asked for anything gives way to
//! the next caller, oldest first: of the same address where that holds its
//! share, of any where the port is full. Who has asked is answered.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::IpAddr,
    rc::Rc,
};

use tokio::sync::Notify;

/// A scraper needs one at a time, a kubelet one for each probe of the pod.
pub(super) const MOST: usize = 128;

/// Of one address.
pub(super) const SHARE: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Room(RefCell<VecDeque<Rc<Held>>>);

#[derive(Debug)]
struct Held {
    peer: IpAddr,
    has_asked: Cell<bool>,
    gives_way: Notify,
}

/// One connection; leaves on drop.
#[derive(Debug)]
pub(super) struct Place {
    room: Rc<Room>,
    held: Rc<Held>,
}

impl Room {
    /// `None`: all who are there have asked for something.
    pub(super) fn enter(self: &Rc<Self>, peer: IpAddr) -> Option<Place> {
        let mut all = self.0.borrow_mut();
        let of_peer = all.iter().filter(|held| held.peer == peer).count();
        let leaves = |held: &Rc<Held>| !held.has_asked.get();
        let leaver = if of_peer >= SHARE {
            Some(all.iter().position(|it| it.peer == peer && leaves(it))?)
        } else if all.len() >= MOST {
            Some(all.iter().position(leaves)?)
        } else {
            None
        };
        if let Some(leaver) = leaver.and_then(|at| all.remove(at)) {
            leaver.gives_way.notify_one();
        }
        let held = Rc::new(Held {
            peer,
            has_asked: Cell::new(false),
            gives_way: Notify::new(),
        });
        all.push_back(Rc::clone(&held));
        drop(all);
        let room = Rc::clone(self);
        Some(Place { room, held })
    }
}

impl Place {
    /// Its whole head is here.
    pub(super) fn has_asked(&self) {
        self.held.has_asked.set(true);
    }

    /// Resolves when another needs the place more.
    pub(super) async fn is_needed(&self) {
        self.held.gives_way.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.room.0.borrow_mut();
        all.retain(|held| !Rc::ptr_eq(held, &self.held));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn peer(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn must_leave(place: &Place) -> bool {
        place.is_needed().now_or_never().is_some()
    }

    #[test]
    fn in_a_full_port_the_oldest_that_asked_for_nothing_gives_way() {
        let room = Rc::new(Room::default());
        let mut held: Vec<Place> = (0..MOST)
            .map(|number| room.enter(peer((number % 4) as u8)).unwrap())
            .collect();
        held[0].has_asked();
        held.push(room.enter(peer(9)).unwrap());
        let leavers: Vec<usize> = (0..held.len())
            .filter(|at| must_leave(&held[*at]))
            .collect();
        assert_eq!(leavers, [1]);
        held.iter().for_each(Place::has_asked);
        assert!(room.enter(peer(9)).is_none(), "all of them are at work");
        held.truncate(MOST - 1);
        assert!(room.enter(peer(9)).is_some());
    }

    #[test]
    fn one_address_takes_no_more_than_its_share() {
        let room = Rc::new(Room::default());
        let other = room.enter(peer(1)).unwrap();
        let held: Vec<Place> = (0..SHARE).map(|_| room.enter(peer(2)).unwrap()).collect();
        let next = room.enter(peer(2)).unwrap();
        assert!(must_leave(&held[0]) && !must_leave(&held[1]) && !must_leave(&other));
        held.iter().for_each(Place::has_asked);
        next.has_asked();
        assert!(room.enter(peer(2)).is_none());
        assert!(room.enter(peer(1)).is_some());
    }
}
