//! An API server as far as lists and watches go: versions, pages, streamed
//! lists, bookmarks, label selectors, kinds that come and go. It can end its
//! watches, forget its past, refuse and fall silent.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    /// By collection, then "namespace/name".
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// What happened, for watches that go on: version, collection, before, after.
    log: Vec<(u64, String, Option<Value>, Option<Value>)>,
    /// Watches from before this are too old.
    oldest: u64,
    watches: Vec<Watch>,
    absent: BTreeSet<&'static str>,
    is_frozen: bool,
    pages_only: bool,
    refuses_versions: bool,
    broken: Option<&'static str>,
    asked: Vec<String>,
}

struct Watch {
    collection: String,
    selector: String,
    lines: mpsc::UnboundedSender<Bytes>,
}

impl Fake {
    pub(super) fn client(&self) -> kube::Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = fake.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        kube::Client::new(service, "default")
    }

    /// `collection` is its path; the object gets the next version.
    pub(super) fn put(&self, collection: &str, mut object: Value) {
        self.with(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            let all = state.objects.entry(collection.to_owned()).or_default();
            let before = all.insert(key(&object), object.clone());
            state.happened(collection, before, Some(object));
        });
    }

    pub(super) fn delete(&self, collection: &str, name: &str) {
        self.with(|state| {
            state.version += 1;
            let all = state.objects.entry(collection.to_owned()).or_default();
            let mut before = all.remove(name);
            if let Some(object) = &mut before {
                object["metadata"]["resourceVersion"] = state.version.to_string().into();
            }
            state.happened(collection, before, None);
        });
    }

    /// Ends all watches, as an API server that stops.
    pub(super) fn cut(&self) {
        self.with(|state| state.watches.clear());
    }

    /// What happened until now can't be watched again.
    pub(super) fn forget(&self) {
        self.with(|state| state.oldest = state.version);
    }

    /// Watches stay open and say nothing more.
    pub(super) fn freeze(&self) {
        self.with(|state| state.is_frozen = true);
    }

    /// New watches are served again.
    pub(super) fn thaw(&self) {
        self.with(|state| {
            state.is_frozen = false;
            state
                .watches
                .iter_mut()
                .for_each(|it| it.collection.clear());
        });
    }

    pub(super) fn page_only(&self) {
        self.with(|state| state.pages_only = true);
    }

    /// No watch goes on from a version.
    pub(super) fn refuse_versions(&self, does: bool) {
        self.with(|state| state.refuses_versions = does);
    }

    /// The group of this kind is not served, or is again.
    pub(super) fn set_absent(&self, plural: &'static str, is_absent: bool) {
        self.with(|state| match is_absent {
            true => state.absent.insert(plural),
            false => state.absent.remove(plural),
        });
    }

    /// Whatever is asked of this kind fails.
    pub(super) fn set_broken(&self, plural: Option<&'static str>) {
        self.with(|state| state.broken = plural);
    }

    /// How many questions had this in them.
    pub(super) fn asked(&self, text: &str) -> usize {
        self.with(|state| state.asked.iter().filter(|it| it.contains(text)).count())
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn answer(&self, request: &Request<Body>) -> Response<BoxBody<Bytes, Infallible>> {
        let path = request.uri().path().to_owned();
        let query: BTreeMap<String, String> = request
            .uri()
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|it| it.split_once('='))
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect();
        self.with(|state| {
            state.asked.push(request.uri().to_string());
            let plural = path.rsplit('/').next().unwrap_or_default();
            if state.broken == Some(plural) {
                return error(StatusCode::INTERNAL_SERVER_ERROR);
            }
            if plural.starts_with('v') {
                return state.resources();
            }
            if state.absent.contains(plural) {
                return error(StatusCode::NOT_FOUND);
            }
            match query.contains_key("watch") {
                true => state.watch(&path, &query),
                false => state.list(&path, &query),
            }
        })
    }
}

impl State {
    fn happened(&mut self, collection: &str, before: Option<Value>, after: Option<Value>) {
        if !self.is_frozen {
            for watch in self.watches.iter().filter(|it| it.collection == collection) {
                watch.tell(before.as_ref(), after.as_ref());
            }
        }
        let event = (self.version, collection.to_owned(), before, after);
        self.log.push(event);
    }

    fn resources(&self) -> Response<BoxBody<Bytes, Infallible>> {
        let all = [
            "servicecidrs",
            "httproutes",
            "grpcroutes",
            "backendpolicies",
            "accesspolicies",
        ];
        let served = all.iter().filter(|it| !self.absent.contains(*it));
        let served: Vec<Value> = served.map(|it| json!({"name": it})).collect();
        ok(&json!({"kind": "APIResourceList", "resources": served}))
    }

    fn list(
        &self,
        path: &str,
        query: &BTreeMap<String, String>,
    ) -> Response<BoxBody<Bytes, Infallible>> {
        let selector = query.get("labelSelector").cloned().unwrap_or_default();
        let limit = query
            .get("limit")
            .and_then(|it| it.parse().ok())
            .unwrap_or(1);
        let from: usize = query
            .get("continue")
            .and_then(|it| it.parse().ok())
            .unwrap_or(0);
        let all = self
            .objects
            .get(path)
            .into_iter()
            .flat_map(BTreeMap::values);
        let all: Vec<_> = all.filter(|it| is_selected(&selector, it)).collect();
        let items: Vec<_> = all.iter().skip(from).take(limit).collect();
        let next = match from + limit < all.len() {
            true => (from + limit).to_string(),
            false => String::new(),
        };
        ok(&json!({
            "metadata": {"resourceVersion": self.version.to_string(), "continue": next},
            "items": items,
        }))
    }

    fn watch(
        &mut self,
        path: &str,
        query: &BTreeMap<String, String>,
    ) -> Response<BoxBody<Bytes, Infallible>> {
        let streams = query.contains_key("sendInitialEvents");
        if streams && self.pages_only {
            return error(StatusCode::UNPROCESSABLE_ENTITY);
        }
        let from: u64 = query
            .get("resourceVersion")
            .and_then(|it| it.parse().ok())
            .unwrap_or(0);
        if self.refuses_versions && !streams {
            return error(StatusCode::BAD_REQUEST);
        }
        let (lines, receiver) = mpsc::unbounded_channel();
        let watch = Watch {
            collection: path.to_owned(),
            selector: query.get("labelSelector").cloned().unwrap_or_default(),
            lines,
        };
        if streams {
            for object in self
                .objects
                .get(path)
                .into_iter()
                .flat_map(BTreeMap::values)
            {
                watch.tell(None, Some(object));
            }
            watch.line(
                "BOOKMARK",
                &json!({"metadata": {
                    "resourceVersion": self.version.to_string(),
                    "annotations": {"k8s.io/initial-events-end": "true"},
                }}),
            );
        } else if from < self.oldest {
            watch.line("ERROR", &json!({"code": 410, "message": "too old"}));
        } else {
            let happened = self.log.iter().filter(|it| it.0 > from && it.1 == path);
            for (_, _, before, after) in happened {
                watch.tell(before.as_ref(), after.as_ref());
            }
        }
        self.watches.push(watch);
        let frames = UnboundedReceiverStream::new(receiver).map(|it| Ok(Frame::data(it)));
        Response::new(BoxBody::new(StreamBody::new(frames)))
    }
}

impl Watch {
    /// As whoever selects by labels sees it.
    fn tell(&self, before: Option<&Value>, after: Option<&Value>) {
        let selected = |it: &&Value| is_selected(&self.selector, it);
        match (before.filter(selected), after.filter(selected)) {
            (None, None) => {}
            (None, Some(object)) => self.line("ADDED", object),
            (Some(_), Some(object)) => self.line("MODIFIED", object),
            (Some(object), None) => self.line("DELETED", after.unwrap_or(object)),
        }
    }

    fn line(&self, r#type: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": r#type, "object": object}));
        // In two pieces, as a network may deliver it.
        let (first, second) = line.split_at(line.len() / 2);
        for piece in [first, second] {
            let _watcher_has_left = self.lines.send(Bytes::copy_from_slice(piece.as_bytes()));
        }
    }
}

fn is_selected(selector: &str, object: &Value) -> bool {
    let has = |label: &str, value: &str| object["metadata"]["labels"][label] == value;
    match selector.split_once("!=") {
        Some((label, value)) => !has(label, value),
        None => selector
            .split_once('=')
            .is_none_or(|(label, value)| has(label, value)),
    }
}

fn key(object: &Value) -> String {
    let text = |field: &str| {
        object["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    format!("{}/{}", text("namespace"), text("name"))
}

fn decoded(text: &str) -> String {
    let text = text.replace("%2F", "/").replace("%21", "!");
    text.replace("%3D", "=")
}

fn ok(body: &Value) -> Response<BoxBody<Bytes, Infallible>> {
    Response::new(Full::new(Bytes::from(body.to_string())).boxed())
}

fn error(status: StatusCode) -> Response<BoxBody<Bytes, Infallible>> {
    let body = json!({"kind": "Status", "code": status.as_u16(), "message": "not so"});
    let mut response = ok(&body);
    *response.status_mut() = status;
    response
}
