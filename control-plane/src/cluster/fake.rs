//! An API server for tests: objects by their path, with resource versions.
//!
//! Creates, reads, replaces (with optimistic locking), merges and watches by
//! name; beside that, fixed answers and failures. No admission, no defaults.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Cluster;

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Inner>);

#[derive(Default)]
struct Inner {
    objects: Mutex<HashMap<String, Value>>,
    answers: Mutex<HashMap<String, Value>>,
    failures: Mutex<HashMap<String, u16>>,
    stalled: Mutex<HashSet<String>>,
    asked: Mutex<Vec<(String, Value)>>,
    removed: Mutex<HashMap<String, u64>>,
    version: Mutex<u64>,
    changed: watch::Sender<u64>,
}

impl Fake {
    pub(crate) fn cluster(&self) -> Cluster {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.serve(request).await) }
        });
        Cluster {
            client: Client::new(service, "weft-system"),
            namespace: "weft-system".to_owned(),
            replica: "replica-0".to_owned(),
        }
    }

    pub(crate) fn named(&self, replica: &str) -> Cluster {
        Cluster {
            replica: replica.to_owned(),
            ..self.cluster()
        }
    }

    /// What a POST to this path is answered, whatever it says.
    pub(crate) fn answer(&self, path: &str, value: Value) {
        self.0
            .answers
            .lock()
            .unwrap()
            .insert(path.to_owned(), value);
    }

    pub(crate) fn fail(&self, path: &str, status: u16) {
        self.0
            .failures
            .lock()
            .unwrap()
            .insert(path.to_owned(), status);
    }

    /// This path is never answered.
    pub(crate) fn stall(&self, path: &str) {
        self.0.stalled.lock().unwrap().insert(path.to_owned());
    }

    pub(crate) fn heal(&self) {
        self.0.failures.lock().unwrap().clear();
    }

    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let version = self.next();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.0
            .objects
            .lock()
            .unwrap()
            .insert(path.to_owned(), object);
        self.0.changed.send_replace(version);
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.0.objects.lock().unwrap().get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        self.0.objects.lock().unwrap().remove(path);
        let version = self.next();
        let mut removed = self.0.removed.lock().unwrap();
        removed.insert(path.to_owned(), version);
        self.0.changed.send_replace(version);
    }

    /// The newest body that was sent to this path.
    pub(crate) fn last(&self, path: &str) -> Value {
        let asked = self.0.asked.lock().unwrap();
        let found = asked.iter().rev().find(|(at, _)| at == path);
        found.map_or(Value::Null, |(_, body)| body.clone())
    }

    /// Whether anything of what was sent to this path is so.
    pub(crate) fn was_sent(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> bool {
        let asked = self.0.asked.lock().unwrap();
        asked.iter().any(|(at, body)| at == path && is_so(body))
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        let asked = self.0.asked.lock().unwrap();
        asked.iter().filter(|(at, _)| at == path).count()
    }

    fn next(&self) -> u64 {
        let mut version = self.0.version.lock().unwrap();
        *version += 1;
        *version
    }

    async fn serve(&self, request: Request<Body>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if !body.is_null() {
            self.0
                .asked
                .lock()
                .unwrap()
                .push((path.clone(), body.clone()));
        }
        let is_stalled = self.0.stalled.lock().unwrap().contains(&path);
        if is_stalled {
            std::future::pending::<()>().await;
        }
        let failure = self.0.failures.lock().unwrap().get(&path).copied();
        if let Some(code) = failure {
            return status(code);
        }
        let fixed = self.0.answers.lock().unwrap().get(&path).cloned();
        match (parts.method, fixed) {
            (Method::POST, Some(fixed)) => answer(&fixed),
            (Method::POST, None) => self.create(&path, body),
            (Method::PUT, _) => self.replace(&path, body),
            // A status is a part of its object that is written by itself.
            (Method::PATCH, _) => self.merge(path.trim_end_matches("/status"), &body),
            (Method::GET, _) if query.contains("watch=true") => self.watch(&path, &query).await,
            (Method::GET, _) if query.contains("fieldSelector") => self.list(&path, &query),
            (Method::GET, _) => match self.object(&path).or_else(|| self.of_all(&path)) {
                Some(found) => answer(&found),
                None => status(404),
            },
            _ => status(405),
        }
    }

    fn create(&self, collection: &str, object: Value) -> Response<Full<Bytes>> {
        let name = object["metadata"]["name"].as_str().unwrap_or("unnamed");
        let path = format!("{collection}/{name}");
        if self.object(&path).is_some() {
            return status(409);
        }
        self.put(&path, object);
        answer(&self.object(&path).unwrap_or_default())
    }

    fn replace(&self, path: &str, object: Value) -> Response<Full<Bytes>> {
        let Some(now) = self.object(path) else {
            return status(404);
        };
        let version = &object["metadata"]["resourceVersion"];
        if !version.is_null() && *version != now["metadata"]["resourceVersion"] {
            return status(409);
        }
        self.put(path, object);
        answer(&self.object(path).unwrap_or_default())
    }

    fn merge(&self, path: &str, patch: &Value) -> Response<Full<Bytes>> {
        let Some(mut now) = self.object(path) else {
            return status(404);
        };
        let version = &patch["metadata"]["resourceVersion"];
        if !version.is_null() && *version != now["metadata"]["resourceVersion"] {
            return status(409);
        }
        merge(&mut now, patch);
        self.put(path, now);
        answer(&self.object(path).unwrap_or_default())
    }

    /// The objects of a kind in all namespaces, if there are any.
    fn of_all(&self, path: &str) -> Option<Value> {
        let (group, plural) = path.rsplit_once('/')?;
        let objects = self.0.objects.lock().unwrap();
        let found = objects.iter().filter(|(at, _)| {
            let below = at.strip_prefix(group).unwrap_or_default();
            let parts: Vec<_> = below.split('/').collect();
            matches!(parts.as_slice(), ["", "namespaces", _, it, _] if *it == plural)
        });
        let items: Vec<Value> = found.map(|(_, object)| object.clone()).collect();
        (!items.is_empty()).then(|| json!({"metadata": {}, "items": items}))
    }

    fn list(&self, collection: &str, query: &str) -> Response<Full<Bytes>> {
        let items: Vec<Value> = self
            .object(&path_of(collection, query))
            .into_iter()
            .collect();
        let version = *self.0.version.lock().unwrap();
        answer(&json!({"metadata": {"resourceVersion": version.to_string()}, "items": items}))
    }

    /// One event, and the end of the watch; the caller comes again.
    async fn watch(&self, collection: &str, query: &str) -> Response<Full<Bytes>> {
        let path = path_of(collection, query);
        let since = query
            .split('&')
            .find_map(|it| it.strip_prefix("resourceVersion="));
        let since: u64 = since.and_then(|it| it.parse().ok()).unwrap_or_default();
        let is_newer = |object: &Value| {
            let version = object["metadata"]["resourceVersion"].as_str();
            version
                .and_then(|it| it.parse::<u64>().ok())
                .is_some_and(|it| it > since)
        };
        let is_gone = || {
            let removed = self.0.removed.lock().unwrap().get(&path).copied();
            removed.is_some_and(|it| it > since)
        };
        let event = || match self.object(&path) {
            Some(object) if is_newer(&object) => {
                Some(json!({"type": "MODIFIED", "object": object}))
            }
            None if is_gone() => Some(json!({"type": "ERROR", "object": {
                // Whoever watches lists again, and finds that it is gone.
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "gone", "reason": "Expired", "code": 410}})),
            _ => None,
        };
        let mut changed = self.0.changed.subscribe();
        loop {
            if let Some(event) = event() {
                return answer(&event);
            }
            changed.changed().await.unwrap();
        }
    }
}

fn path_of(collection: &str, query: &str) -> String {
    let prefix = "fieldSelector=metadata.name%3D";
    let name = query.split('&').find_map(|it| it.strip_prefix(prefix));
    format!("{collection}/{}", name.unwrap_or_default())
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

fn answer(value: &Value) -> Response<Full<Bytes>> {
    Response::new(Full::new(format!("{value}\n").into()))
}

fn status(code: u16) -> Response<Full<Bytes>> {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        403 => "Forbidden",
        _ => "InternalError",
    };
    let mut response = answer(
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "message": format!("made to fail: {code}"), "reason": reason, "code": code}),
    );
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
