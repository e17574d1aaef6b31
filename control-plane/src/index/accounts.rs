//! Service accounts, each named once however many pods have it: an endpoint's
//! identity is its account's name.
//!
//! Kept in `tables`. An account without pods takes no room.

use std::collections::{HashMap, hash_map::Entry};

use crate::model::{Name, Pod};

/// With how many pods have each.
#[derive(Debug, Default)]
pub(super) struct Accounts(HashMap<Name, usize>);

impl Accounts {
    pub(super) fn claim(&mut self, pod: &Pod) {
        *self.0.entry(account(pod)).or_default() += 1;
    }

    pub(super) fn release(&mut self, pod: &Pod) {
        let Entry::Occupied(mut pods) = self.0.entry(account(pod)) else {
            return;
        };
        match *pods.get() {
            0 | 1 => drop(pods.remove()),
            _ => *pods.get_mut() -= 1,
        }
    }

    pub(super) fn of(&self, pod: &Pod) -> Name {
        let new = account(pod);
        let known = self.0.get_key_value(&new);
        known.map_or(new, |(known, _)| known.clone())
    }
}

fn account(pod: &Pod) -> Name {
    Name::new(&pod.name.namespace, &pod.service_account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_named_once_and_for_as_long_as_a_pod_has_it() {
        let pod = Pod {
            name: Name::new("shop", "cart-0"),
            service_account: "cart".to_owned(),
            ..Pod::default()
        };
        let mut accounts = Accounts::default();
        accounts.claim(&pod);
        accounts.claim(&pod);
        assert_eq!(accounts.of(&pod), Name::new("shop", "cart"));
        assert!(std::ptr::eq(&*accounts.of(&pod), &*accounts.of(&pod)));
        accounts.release(&pod);
        assert_eq!(accounts.0.len(), 1);
        accounts.release(&pod);
        accounts.release(&pod);
        assert!(accounts.0.is_empty());
        assert_eq!(accounts.of(&pod), Name::new("shop", "cart"));
    }
}
