//! What is asked of the API server: whether it has a kind, a page of a list,
//! the lines of a watch.
//!
//! Below `reflect`, which decides what to ask and what an answer means. Every
//! wait is bounded here, but for the next line: how long that may take is
//! `reflect`'s to say. Knows kube's client, not what objects mean.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use kube::{
    Client,
    api::{ListParams, WatchParams},
    client::Body,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::{kinds::Watched, pruned::Pruned};

/// Why nothing, or no more, came.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the API server has no such kind")]
    Absent,
    #[error("the version to go on from is too old")]
    Expired,
    /// The question, not the moment, was wrong.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Failed(String),
    #[error("no event and no bookmark for {} seconds", .0.as_secs())]
    Silent(Duration),
    #[error("the control plane is stopping")]
    Stopping,
}

/// Objects, and where to go on.
pub(super) struct Page {
    pub(super) version: String,
    /// Empty: this was the last.
    pub(super) next: String,
    pub(super) objects: Vec<Value>,
}

/// Something that a watch says.
pub(super) enum Line {
    Applied(Value),
    Deleted(Value),
    /// All that happened until this version was told.
    Mark {
        version: String,
        /// What there was at the beginning was told.
        is_whole: bool,
    },
}

/// The API server is asked to end each watch after this time: with less it is
/// busy with our questions, with more a dead connection is noticed later.
pub(super) const LIFE: Duration = Duration::from_secs(120);
/// Objects on one page.
const PAGE: u32 = 500;
/// Until the head of an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Until the end of a page.
const BODY: Duration = Duration::from_secs(60);
/// Of one object. etcd takes 1.5 MiB; JSON may be longer.
const LONGEST_LINE: usize = 16 << 20;
/// Of an error.
const LONGEST_ERROR: usize = 64 << 10;

/// # Errors
/// When there was no answer.
pub(super) async fn is_served(client: &Client, watched: &Watched) -> Result<bool, Fault> {
    #[derive(Deserialize)]
    struct Resources {
        resources: Vec<Resource>,
    }
    #[derive(Deserialize)]
    struct Resource {
        name: String,
    }
    let request = Request::get(watched.group_path()).body(Vec::new());
    let request = request.map_err(|error| Fault::Failed(error.to_string()))?;
    let response = match ask(client, request).await {
        Err(Fault::Absent) => return Ok(false),
        other => other?,
    };
    let all: Resources = whole(response).await?;
    Ok(all.resources.iter().any(|it| it.name == watched.plural()))
}

/// # Errors
/// When there was no page.
pub(super) async fn page(client: &Client, watched: &Watched, next: &str) -> Result<Page, Fault> {
    let mut parameters = ListParams::default().limit(PAGE);
    parameters.label_selector = selector(watched);
    parameters.continue_token = (!next.is_empty()).then(|| next.to_owned());
    let request = kube::core::Request::new(watched.path()).list(&parameters);
    let request = request.map_err(|error| Fault::Failed(error.to_string()))?;
    let response = ask(client, accepting(request, watched, "List")).await?;
    let body = read(response).await?;
    let read = watched.pruned().read(&body);
    let mut list = read.map_err(|error| Fault::Failed(error.to_string()))?;
    let text = |pointer: &str| super::kinds::text(&list, pointer).to_owned();
    let (version, next) = (
        text("/metadata/resourceVersion"),
        text("/metadata/continue"),
    );
    match list.get_mut("items").map(Value::take) {
        Some(Value::Array(objects)) => Ok(Page {
            version,
            next,
            objects,
        }),
        None | Some(Value::Null) if list.get("metadata").is_some() => Ok(Page {
            version,
            next,
            objects: Vec::new(),
        }),
        _ => Err(Fault::Failed("the answer is no list".to_owned())),
    }
}

/// From `version` on, or with all that there is first.
///
/// # Errors
/// When nothing can be watched.
pub(super) async fn watch(
    client: &Client,
    watched: &Watched,
    version: Option<&str>,
) -> Result<Lines, Fault> {
    let parameters = WatchParams {
        label_selector: selector(watched),
        send_initial_events: version.is_none(),
        timeout: u32::try_from(LIFE.as_secs()).ok(),
        ..WatchParams::default()
    };
    let request = kube::core::Request::new(watched.path());
    let request = request.watch(&parameters, version.unwrap_or_default());
    let request = request.map_err(|error| Fault::Failed(error.to_string()))?;
    let response = ask(client, accepting(request, watched, "")).await?;
    Ok(Lines {
        pruned: watched.pruned(),
        body: response.into_body(),
        held: BytesMut::new(),
        scanned: 0,
    })
}

fn selector(watched: &Watched) -> Option<String> {
    (!watched.selector.is_empty()).then(|| watched.selector.to_owned())
}

fn accepting(mut request: Request<Vec<u8>>, watched: &Watched, list: &str) -> Request<Vec<u8>> {
    let accept = match (watched.metadata_only, list) {
        (false, _) => HeaderValue::from_static("application/json"),
        (true, "") => {
            HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        }
        (true, _) => HeaderValue::from_static(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        ),
    };
    request.headers_mut().insert(header::ACCEPT, accept);
    request
}

async fn ask(client: &Client, request: Request<Vec<u8>>) -> Result<Response<Body>, Fault> {
    let answer = timeout(ANSWER, client.send(request.map(Body::from))).await;
    let response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(Fault::Failed(error.to_string())),
        Err(_) => return Err(Fault::Failed("no answer in time".to_owned())),
    };
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let mut body = response.into_body();
    let mut text = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            text.extend_from_slice(frame.data_ref().map_or(&[][..], |it| it));
            if text.len() > LONGEST_ERROR {
                break;
            }
        }
    };
    let _as_much_as_came = timeout(ANSWER, read).await;
    let said: Option<Value> = serde_json::from_slice(&text).ok();
    let message = said.as_ref().and_then(|it| it.get("message")?.as_str());
    Err(fault(status, message.unwrap_or_default()))
}

fn fault(status: StatusCode, message: &str) -> Fault {
    let said = || format!("{}: {message}", status.as_u16());
    match status {
        StatusCode::NOT_FOUND => Fault::Absent,
        StatusCode::GONE => Fault::Expired,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Fault::Refused(said()),
        _ => Fault::Failed(said()),
    }
}

async fn whole<T: serde::de::DeserializeOwned>(response: Response<Body>) -> Result<T, Fault> {
    let body = read(response).await?;
    serde_json::from_slice(&body).map_err(|error| Fault::Failed(error.to_string()))
}

async fn read(response: Response<Body>) -> Result<Bytes, Fault> {
    let body = timeout(BODY, response.into_body().collect()).await;
    let body = body.map_err(|_| Fault::Failed("the answer did not end in time".to_owned()))?;
    let body = body.map_err(|error| Fault::Failed(error.to_string()))?;
    Ok(body.to_bytes())
}

/// A watch that is open.
pub(super) struct Lines {
    pruned: Pruned,
    body: Body,
    held: BytesMut,
    /// So many bytes of `held` have no end of line.
    scanned: usize,
}

impl Lines {
    /// `None`: the API server has ended it, as it does after some minutes.
    ///
    /// # Errors
    /// When the watch can't go on.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, Fault> {
        loop {
            let unscanned = self.held.get(self.scanned..).unwrap_or_default();
            if let Some(length) = memchr::memchr(b'\n', unscanned) {
                let line = self.held.split_to(self.scanned + length + 1);
                self.scanned = 0;
                return parse(&line, self.pruned).map(Some);
            }
            self.scanned = self.held.len();
            if self.scanned > LONGEST_LINE {
                return Err(Fault::Failed("a line without an end".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    let data = frame.data_ref().map_or(&[][..], |it| it);
                    self.held.extend_from_slice(data);
                }
                Some(Err(error)) => return Err(Fault::Failed(error.to_string())),
                None => return Ok(None),
            }
        }
    }
}

fn parse(line: &[u8], pruned: Pruned) -> Result<Line, Fault> {
    let read = pruned.read(line);
    let mut event = read.map_err(|error| Fault::Failed(error.to_string()))?;
    let Some(object) = event.get_mut("object").map(Value::take) else {
        return Err(Fault::Failed("a line that is no event".to_owned()));
    };
    let version = || super::kinds::text(&object, "/metadata/resourceVersion").to_owned();
    match super::kinds::text(&event, "/type") {
        "ADDED" | "MODIFIED" => Ok(Line::Applied(object)),
        "DELETED" => Ok(Line::Deleted(object)),
        "BOOKMARK" => Ok(Line::Mark {
            version: version(),
            is_whole: object
                .pointer("/metadata/annotations")
                .and_then(|it| it.get("k8s.io/initial-events-end"))
                .is_some(),
        }),
        _ => {
            let code = object.get("code").and_then(Value::as_u64);
            let code = code.and_then(|it| u16::try_from(it).ok());
            let status = code.and_then(|it| StatusCode::from_u16(it).ok());
            let message = super::kinds::text(&object, "/message");
            Err(fault(
                status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                message,
            ))
        }
    }
}
