//! Joins objects into what proxies need to know, one change at a time.

use std::net::{IpAddr, SocketAddr};

use crate::model::{
    BackendName, Change, Endpoint, Event, Key, Meaning, Name, Problem, ResolvedService,
    ResolvedWorkload,
};

/// Everything that the sources said, joined.
#[derive(Debug, Default)]
pub struct Index {}

impl Index {
    /// With `ranges`, the mesh's addresses as configured; without, they follow
    /// from the addresses that there are.
    pub fn new(_ranges: Vec<(IpAddr, u8)>) -> Self {
        Self::default()
    }

    pub fn apply(&mut self, _event: Event) -> Vec<Change> {
        Vec::new()
    }

    pub fn service(&self, _name: &Name) -> Option<ResolvedService> {
        None
    }

    /// `None`: no service has such a port.
    pub fn endpoints(&self, _backend: &BackendName) -> Option<impl Iterator<Item = &Endpoint>> {
        None::<std::iter::Empty<&Endpoint>>
    }

    pub fn endpoint(&self, _backend: &BackendName, _uid: &str) -> Option<&Endpoint> {
        None
    }

    pub fn meaning(&self, _address: SocketAddr) -> Meaning {
        Meaning::Unknown
    }

    pub fn workload(&self, _pod: &Name) -> Option<ResolvedWorkload> {
        None
    }

    pub fn ranges(&self) -> Vec<(IpAddr, u8)> {
        Vec::new()
    }

    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        std::iter::empty()
    }

    pub fn problems_of(&self, _object: &Key) -> &[Problem] {
        &[]
    }
}
