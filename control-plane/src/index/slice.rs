//! An EndpointSlice by what it lists.
//!
//! Kept in `tables`: a slice of a thousand endpoints is asked for one of them.

use std::{collections::HashMap, net::IpAddr};

use crate::model::{EndpointSlice, Name, SliceEndpoint};

/// What an EndpointSlice lists: a pod by its name, or an address alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Reference {
    Pod(Name),
    Address(IpAddr),
}

#[derive(Debug)]
pub(super) struct Slice {
    pub(super) slice: EndpointSlice,
    by_reference: HashMap<Reference, usize>,
}

impl Slice {
    /// `known` has the same name where somebody has it already.
    pub(super) fn new(slice: EndpointSlice, known: impl Fn(Name) -> Name) -> Self {
        let mut by_reference = HashMap::with_capacity(slice.endpoints.len());
        for (index, endpoint) in slice.endpoints.iter().enumerate() {
            let reference = match references(&slice.name.namespace, endpoint) {
                Some(Reference::Pod(name)) => Reference::Pod(known(name)),
                Some(address) => address,
                None => continue,
            };
            by_reference.entry(reference).or_insert(index);
        }
        Self {
            slice,
            by_reference,
        }
    }

    pub(super) fn service(&self) -> Name {
        Name::new(&self.slice.name.namespace, &self.slice.service)
    }

    pub(super) fn entry(&self, reference: &Reference) -> Option<&SliceEndpoint> {
        self.slice.endpoints.get(*self.by_reference.get(reference)?)
    }

    pub(super) fn references(&self) -> impl Iterator<Item = &Reference> {
        self.by_reference.keys()
    }
}

/// An endpoint's own: its pod if it names one, otherwise its address. Only the
/// first address counts: the API calls them interchangeable.
fn references(namespace: &str, endpoint: &SliceEndpoint) -> Option<Reference> {
    match &endpoint.pod {
        Some(pod) => Some(Reference::Pod(Name::new(namespace, pod))),
        None => endpoint.addresses.first().copied().map(Reference::Address),
    }
}
