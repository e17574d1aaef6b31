//! An API server as far as the control plane reads one: discovery, lists in
//! pages or as streams, watches that stay open and tell of changes.
//!
//! Its objects are made before anybody asks, so that answering costs it next to
//! nothing: what is measured is the reader.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::objects::{self, Pods};

type Body = BoxBody<Bytes, Infallible>;

/// How it tells what there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lists {
    /// `sendInitialEvents`, Kubernetes 1.32 and later.
    Streamed,
    Paged,
}

pub(crate) struct Cluster {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

struct State {
    kinds: Vec<(&'static str, Vec<String>)>,
    lists: Lists,
    pods: Pods,
    /// By plural, for as long as their readers are there.
    watches: Mutex<Vec<(String, mpsc::UnboundedSender<Bytes>)>>,
}

impl Cluster {
    pub(crate) async fn start(pods: Pods, lists: Lists) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            kinds: objects::all(pods),
            lists,
            pods,
            watches: Mutex::default(),
        });
        let shared = state.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let state = shared.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let answer = state.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let served = http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
                connections.spawn(served);
            }
        });
        Self {
            address,
            state,
            _serving: serving,
        }
    }

    /// Bytes of all objects.
    pub(crate) fn size(&self) -> usize {
        let kinds = self.state.kinds.iter();
        kinds.flat_map(|it| &it.1).map(String::len).sum()
    }

    pub(crate) fn change(&self, plural: &str, object: &str) {
        let line = Bytes::from(format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}\n"));
        let watches = self.state.watches.lock().unwrap();
        for (_, watch) in watches.iter().filter(|(it, _)| it == plural) {
            let _reader_has_left = watch.send(line.clone());
        }
    }
}

impl State {
    fn answer(self: &Arc<Self>, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
        // Groups of no cluster's own: no custom kind is there.
        if path.starts_with("/apis/") && plural != "endpointslices" {
            return error(StatusCode::NOT_FOUND);
        }
        // Two watches share the pods.
        let asks_for_plain = query.contains("%21%3D");
        let has_any = plural != "pods" || asks_for_plain == (self.pods == Pods::Plain);
        let value = |name: &str| {
            let mut all = query.split('&').filter_map(|it| it.split_once('='));
            all.find(|it| it.0 == name).map(|it| it.1)
        };
        let number = |name| value(name).and_then(|it| it.parse::<usize>().ok());
        if value("watch").is_some() {
            let streams = value("sendInitialEvents").is_some();
            if streams && self.lists == Lists::Paged {
                return error(StatusCode::UNPROCESSABLE_ENTITY);
            }
            return self.watch(plural, streams, has_any);
        }
        let (from, limit) = (
            number("continue").unwrap_or(0),
            number("limit").unwrap_or(500),
        );
        let page = self.page(&plural, from, limit, has_any);
        Response::new(Full::new(Bytes::from(page)).boxed())
    }

    fn of(&self, plural: &str, has_any: bool) -> &[String] {
        let mut kinds = self.kinds.iter().filter(|it| it.0 == plural && has_any);
        kinds.next().map_or(&[], |it| it.1.as_slice())
    }

    fn page(&self, plural: &str, from: usize, limit: usize, has_any: bool) -> String {
        let all = self.of(plural, has_any);
        let to = (from + limit).min(all.len());
        let next = match to < all.len() {
            true => to.to_string(),
            false => String::new(),
        };
        let items = all.get(from..to).unwrap_or_default().join(",");
        format!(r#"{{"metadata":{{"resourceVersion":"1","continue":"{next}"}},"items":[{items}]}}"#)
    }

    fn watch(self: &Arc<Self>, plural: String, streams: bool, has_any: bool) -> Response<Body> {
        let (sender, lines) = mpsc::unbounded_channel();
        self.watches.lock().unwrap().push((plural.clone(), sender));
        let state = self.clone();
        let count = if streams {
            state.of(&plural, has_any).len()
        } else {
            0
        };
        let told = (0..count).step_by(CHUNK).map(move |from| {
            let all = state.of(&plural, has_any);
            let chunk = all.get(from..(from + CHUNK).min(all.len()));
            let lines = chunk.unwrap_or_default().iter();
            let lines: String = lines
                .map(|it| format!("{{\"type\":\"ADDED\",\"object\":{it}}}\n"))
                .collect();
            Bytes::from(lines)
        });
        let end = streams.then(|| Bytes::from_static(END.as_bytes()));
        let first = stream::iter(told.chain(end));
        let frames = first.chain(UnboundedReceiverStream::new(lines));
        let body = StreamBody::new(frames.map(|it| Ok(Frame::data(it))));
        Response::new(BoxBody::new(body))
    }
}

/// Lines of one piece.
const CHUNK: usize = 16;

const END: &str = concat!(
    r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1","#,
    r#""annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
    "\n"
);

fn error(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")).boxed());
    *response.status_mut() = status;
    response
}
