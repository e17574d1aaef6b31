//! Shows a worker's pools to whoever looks at `/dump`.
//!
//! Asked by message and answered on the worker's own thread, between two polls:
//! the path pays nothing for being looked at, and no lock is needed.

use std::{collections::HashMap, net::SocketAddr, rc::Rc};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::{
    discovery::{Backend, Endpoint, EndpointKey, Snapshot},
    upstream::pool::Pool,
};

use super::{Worker, backends};

/// Wants to see the pools.
pub(crate) type Look = oneshot::Sender<Value>;

impl Worker {
    pub(super) async fn show(self: Rc<Self>, mut looks: mpsc::Receiver<Look>) {
        while let Some(look) = looks.recv().await {
            // Who asked may be gone.
            let _ = look.send(self.pools());
        }
    }

    fn pools(&self) -> Value {
        let known = named(&self.outbound.cx.snapshot.borrow());
        let locals = &self.inbound.locals;
        json!({
            "outbound": rendered(&self.outbound.cx.pool, |key| known.get(&key).cloned()),
            "inbound": rendered(&self.inbound.cx.pool, |key| Some((locals.address(key)?, None))),
        })
    }
}

type Name = (SocketAddr, Option<String>);

fn named(snapshot: &Snapshot) -> HashMap<EndpointKey, Name> {
    let name = |endpoint: &Endpoint| {
        let pod = format!("{}/{}", endpoint.namespace, endpoint.pod);
        (endpoint.key, (endpoint.address, Some(pod)))
    };
    let mut all = HashMap::new();
    backends(snapshot, |backend: &Backend| {
        all.extend(backend.endpoints.iter().map(|it| name(it)));
    });
    all
}

/// In the order of addresses; one that was forgotten a moment ago has none.
fn rendered(pool: &Pool, name: impl Fn(EndpointKey) -> Option<Name>) -> Vec<Value> {
    let views = pool.view().into_iter();
    let mut all: Vec<_> = views.map(|(key, view)| (name(key), view)).collect();
    all.sort_by_key(|(name, _)| name.as_ref().map(|(address, _)| *address));
    let one = |(name, view)| {
        let (address, pod): (Option<SocketAddr>, Option<String>) = match name {
            Some((address, pod)) => (Some(address), pod),
            None => (None, None),
        };
        json!({"address": address, "pod": pod, "holds": view})
    };
    all.into_iter().map(one).collect()
}
