//! Names, or other values, by a key: the shape of every reverse table.
//!
//! Used by `tables`. A key without names takes no room, so that what has come
//! and gone leaves nothing behind.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use crate::model::Name;

/// A set per key, without empty sets.
#[derive(Debug)]
pub(super) struct Sets<K, V = Name>(HashMap<K, BTreeSet<V>>);

impl<K, V> Default for Sets<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: Ord + Clone> Sets<K, V> {
    pub(super) fn insert(&mut self, key: K, value: &V) {
        self.0.entry(key).or_default().insert(value.clone());
    }

    pub(super) fn remove(&mut self, key: &K, value: &V) {
        if let Some(set) = self.0.get_mut(key) {
            set.remove(value);
            if set.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn of<Q>(&self, key: &Q) -> impl Iterator<Item = &V> + use<'_, K, V, Q>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.0.get(key).into_iter().flatten()
    }

    pub(super) fn len(&self, key: &K) -> usize {
        self.0.get(key).map_or(0, BTreeSet::len)
    }

    pub(super) fn is_empty(&self, key: &K) -> bool {
        !self.0.contains_key(key)
    }
}
