//! Names, or other values, by a key: the shape of every reverse table.
//!
//! Used by `tables`. A key without names takes no room, so that what has come
//! and gone leaves nothing behind.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap, hash_map::Entry},
    hash::Hash,
};

use crate::model::Name;

/// A set per key, without empty sets.
#[derive(Debug)]
pub(super) struct Sets<K, V = Name>(HashMap<K, Members<V>>);

/// Most are of one: a tree's node has room for eleven names, half a kilobyte
/// for each of a hundred thousand endpoints.
#[derive(Debug)]
enum Members<V> {
    One(V),
    Many(BTreeSet<V>),
}

impl<V> Members<V> {
    fn iter(&self) -> impl Iterator<Item = &V> {
        let (one, many) = match self {
            Self::One(value) => (Some(value), None),
            Self::Many(values) => (None, Some(values)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(values) => values.len(),
        }
    }
}

impl<K, V> Default for Sets<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: Ord + Clone> Sets<K, V> {
    pub(super) fn insert(&mut self, key: K, value: &V) {
        match self.0.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Members::One(value.clone()));
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Members::One(held) if held == value => {}
                Members::One(held) => {
                    let both = BTreeSet::from([held.clone(), value.clone()]);
                    entry.insert(Members::Many(both));
                }
                Members::Many(values) => {
                    values.insert(value.clone());
                }
            },
        }
    }

    pub(super) fn remove(&mut self, key: &K, value: &V) {
        let is_empty = match self.0.get_mut(key) {
            None => false,
            Some(Members::One(held)) => held == value,
            Some(Members::Many(values)) => {
                values.remove(value);
                values.is_empty()
            }
        };
        if is_empty {
            self.0.remove(key);
        }
    }

    pub(super) fn of<Q>(&self, key: &Q) -> impl Iterator<Item = &V> + use<'_, K, V, Q>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.0.get(key).into_iter().flat_map(Members::iter)
    }

    pub(super) fn len(&self, key: &K) -> usize {
        self.0.get(key).map_or(0, Members::len)
    }

    pub(super) fn is_empty(&self, key: &K) -> bool {
        !self.0.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_grows_from_one_to_many_and_leaves_nothing_behind() {
        let name = |text: &str| Name::new("shop", text);
        let mut sets = Sets::<u8>::default();
        let of = |sets: &Sets<u8>| sets.of(&1).cloned().collect::<Vec<_>>();
        sets.insert(1, &name("b"));
        sets.insert(1, &name("b"));
        assert_eq!((of(&sets), sets.len(&1)), (vec![name("b")], 1));
        sets.remove(&1, &name("other"));
        sets.insert(1, &name("a"));
        sets.insert(1, &name("c"));
        assert_eq!(of(&sets), [name("a"), name("b"), name("c")]);
        for text in ["a", "b", "c"] {
            assert!(!sets.is_empty(&1));
            sets.remove(&1, &name(text));
        }
        assert!(sets.is_empty(&1) && of(&sets).is_empty());
    }
}
