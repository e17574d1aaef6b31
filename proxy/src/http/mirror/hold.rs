//! How much memory the copies of a worker may take together.

use std::{cell::Cell, rc::Rc};

/// Requests whose copies are held at once: being filled, or under way.
const MOST: usize = 256;

/// Of all their bodies together.
const MOST_BYTES: usize = 4 << 20;

/// What all of them take now.
#[derive(Debug, Default)]
pub(super) struct Held {
    copies: Cell<usize>,
    bytes: Cell<usize>,
}

/// One copied request's part of it; given back on drop.
#[derive(Debug)]
pub(super) struct Hold {
    all: Rc<Held>,
    bytes: usize,
}

impl Hold {
    /// `None`: there are too many.
    pub(super) fn new(all: &Rc<Held>) -> Option<Self> {
        let copies = all.copies.get();
        (copies < MOST).then(|| {
            all.copies.set(copies + 1);
            let all = Rc::clone(all);
            Self { all, bytes: 0 }
        })
    }

    /// `false`: there is no room for so much more.
    pub(super) fn more(&mut self, bytes: usize) -> bool {
        let all = self.all.bytes.get().saturating_add(bytes);
        let has_room = all <= MOST_BYTES;
        if has_room {
            self.all.bytes.set(all);
            self.bytes += bytes;
        }
        has_room
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Held { copies, bytes } = &*self.all;
        copies.set(copies.get().saturating_sub(1));
        bytes.set(bytes.get().saturating_sub(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_copies_and_bytes_are_held_than_may_be() {
        let all = Rc::new(Held::default());
        let mut held: Vec<Hold> = (0..MOST).map(|_| Hold::new(&all).unwrap()).collect();
        assert!(Hold::new(&all).is_none());
        let each = MOST_BYTES / MOST;
        assert!(held.iter_mut().all(|hold| hold.more(each)));
        assert!(!held[0].more(1));
        held.pop();
        assert!(held[0].more(each) && !held[0].more(1));
        drop(held);
        assert_eq!((all.copies.get(), all.bytes.get()), (0, 0));
    }
}
