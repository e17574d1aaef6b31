//! The callers' side of `traffic`: HTTP/1 by hand, and load in a pod.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use bytes::BytesMut;
use futures_util::future::join_all;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};

use super::application::{fields, head, length, more};
use crate::world::Pod;

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn runtime() -> Runtime {
    let built = Builder::new_current_thread().enable_all().build();
    built.expect("a runtime can be made")
}

/// Runs what `make` makes in the pod's network.
pub fn run<T: Send, F: Future<Output = T>>(pod: &Pod, make: impl FnOnce() -> F + Send) -> T {
    pod.inside(|| runtime().block_on(make()))
}

/// What came back over HTTP/1.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        fields(&self.head)
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn is_last(&self) -> bool {
        self.field("connection")
            .is_some_and(|it| it.eq_ignore_ascii_case("close"))
    }
}

/// A caller that keeps its HTTP/1 connection as long as it may.
#[derive(Debug)]
pub struct One {
    to: SocketAddr,
    open: Option<(TcpStream, BytesMut)>,
}

impl One {
    #[must_use]
    pub fn new(to: SocketAddr) -> Self {
        Self { to, open: None }
    }

    /// Connects where it must, sends, and reads the answer.
    ///
    /// # Errors
    /// As the system says, and when no answer comes.
    pub async fn ask(&mut self, request: &[u8]) -> io::Result<Reply> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let stream = TcpStream::connect(self.to).await?;
                stream.set_nodelay(true)?;
                (stream, BytesMut::new())
            }
        };
        let (stream, buffer) = &mut open;
        stream.write_all(request).await?;
        let reply = timeout(PATIENCE, read(stream, buffer)).await??;
        if !reply.is_last() {
            self.open = Some(open);
        }
        Ok(reply)
    }

    /// # Errors
    /// As `ask`.
    pub async fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.ask(format!("GET {path} HTTP/1.1\r\nhost: app\r\n\r\n").as_bytes())
            .await
    }

    /// # Errors
    /// As `ask`.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Reply> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: app\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.ask(&[head.as_bytes(), body].concat()).await
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Reply> {
    let head = head(stream, buffer).await?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse().ok())
        .unwrap_or_default();
    let length = length(&head);
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    Ok(Reply {
        status,
        head,
        body: buffer.split_to(length).to_vec(),
    })
}

/// What callers got.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub replies: u64,
    /// By status.
    pub statuses: BTreeMap<u16, u64>,
    /// By body, of those with status 200.
    pub bodies: BTreeMap<String, u64>,
    /// Connections that broke, and the `proxy-status` of what the mesh answered.
    pub errors: Vec<String>,
    /// Answers that ended their connection.
    pub closes: u64,
}

impl Tally {
    fn add(&mut self, reply: io::Result<Reply>) {
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return self.errors.push(error.to_string()),
        };
        self.replies += 1;
        *self.statuses.entry(reply.status).or_default() += 1;
        self.closes += u64::from(reply.is_last());
        if let Some(fault) = reply.field("proxy-status") {
            self.errors.push(fault.to_owned());
        }
        if reply.status == 200 {
            *self.bodies.entry(reply.text()).or_default() += 1;
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.replies += other.replies;
        self.closes += other.closes;
        self.errors.extend(other.errors);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (body, count) in other.bodies {
            *self.bodies.entry(body).or_default() += count;
        }
        self
    }

    #[must_use]
    pub fn status(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or_default()
    }

    #[must_use]
    pub fn body(&self, body: &str) -> u64 {
        self.bodies.get(body).copied().unwrap_or_default()
    }

    /// # Panics
    /// When the mesh made an error, or nothing was asked.
    #[track_caller]
    pub fn assert_flawless(&self) {
        assert!(self.replies > 0, "nothing was asked");
        let shown: Vec<_> = self.errors.iter().take(5).collect();
        let failed = self.errors.len();
        assert!(
            failed == 0,
            "{failed} of {} failed: {shown:?}",
            self.replies
        );
        assert_eq!(self.status(200), self.replies, "{:?}", self.statuses);
    }
}

/// What callers do.
#[derive(Clone, Debug)]
pub struct Load {
    pub to: SocketAddr,
    pub connections: usize,
    /// Of each connection; `None`: until it is told to stop.
    pub requests: Option<usize>,
    pub method: &'static str,
    pub path: &'static str,
    pub body: usize,
    /// Between an answer and the next request.
    pub think: Duration,
}

impl Load {
    #[must_use]
    pub fn new(to: SocketAddr) -> Self {
        Self {
            to,
            connections: 8,
            requests: None,
            method: "GET",
            path: "/",
            body: 0,
            think: Duration::from_millis(2),
        }
    }

    fn request(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: app\r\n", self.method, self.path);
        if self.method == "POST" {
            text.push_str(&format!("content-length: {}\r\n", self.body));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len() + self.body, b'x');
        bytes
    }
}

/// Calls until all is asked.
#[must_use]
pub fn load(pod: &Pod, load: &Load) -> Tally {
    let never = AtomicBool::new(false);
    run(pod, || call(load, &never))
}

/// Calls while `work` runs, and a moment before and after it.
pub fn during<T>(pod: &Pod, load: &Load, work: impl FnOnce() -> T) -> (Tally, T) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let calling = scope.spawn(|| run(pod, || call(load, &stop)));
        // Set however `work` ends: the scope waits for the callers.
        let guard = Stop(&stop);
        let done = work();
        drop(guard);
        let tally = calling
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (tally, done)
    })
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn call(load: &Load, stop: &AtomicBool) -> Tally {
    let request = load.request();
    let callers = (0..load.connections).map(|_| async {
        let (mut tally, mut one) = (Tally::default(), One::new(load.to));
        let mut made = 0;
        while load.requests.is_none_or(|most| made < most) && !stop.load(Ordering::SeqCst) {
            made += 1;
            tally.add(one.ask(&request).await);
            if load.think > Duration::ZERO {
                sleep(load.think).await;
            }
        }
        tally
    });
    join_all(callers)
        .await
        .into_iter()
        .fold(Tally::default(), Tally::merge)
}

/// What a pod's proxy tells of itself on its debug port.
///
/// # Panics
/// When it tells nothing.
#[must_use]
pub fn dump(pod: &Pod) -> serde_json::Value {
    let to = SocketAddr::from(([127, 0, 0, 1], 15022));
    let reply = run(pod, || async move { One::new(to).get("/dump").await });
    let reply = reply.expect("the proxy answers");
    serde_json::from_slice(&reply.body).expect("it answers with JSON")
}
