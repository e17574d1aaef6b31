//! The server's side of `traffic`.

use std::{
    fmt,
    io::{self, ErrorKind},
    net,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};

/// A request that arrived whole.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub fields: Vec<(String, String)>,
    /// Bytes of the body.
    pub body: usize,
    /// Which of the application's connections, from 0.
    pub connection: u64,
}

impl Asked {
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What the application says to it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// HTTP/2 alone.
    pub trailers: Option<Vec<(&'static str, String)>>,
    /// Waits before the head.
    pub after: Duration,
    /// Waits between the head and the body.
    pub pause: Duration,
    /// Closes instead of answering (HTTP/1), resets (HTTP/2).
    pub is_cut: bool,
}

impl Answer {
    #[must_use]
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::status(200, body)
    }

    #[must_use]
    pub fn status(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: body.into(),
            trailers: None,
            after: Duration::ZERO,
            pause: Duration::ZERO,
            is_cut: false,
        }
    }

    /// A gRPC status in the head: trailers-only.
    #[must_use]
    pub fn grpc_head(status: u8) -> Self {
        let mut answer = Self::ok("");
        answer.fields = vec![
            ("content-type", "application/grpc".to_owned()),
            ("grpc-status", status.to_string()),
        ];
        answer
    }

    /// A gRPC status in trailers, after `body`, which may be empty DATA.
    #[must_use]
    pub fn grpc(status: u8, body: impl Into<Bytes>) -> Self {
        let mut answer = Self::ok(body);
        answer.fields = vec![("content-type", "application/grpc".to_owned())];
        answer.trailers = Some(vec![("grpc-status", status.to_string())]);
        answer
    }

    #[must_use]
    pub fn cut() -> Self {
        let mut answer = Self::ok("");
        answer.is_cut = true;
        answer
    }

    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }

    #[must_use]
    pub fn pause(mut self, time: Duration) -> Self {
        self.pause = time;
        self
    }
}

type Answers = dyn Fn(&Asked) -> Answer + Send + Sync;

pub(super) struct Shared {
    pub(super) answers: Box<Answers>,
    /// HTTP/1 connections that were idle for so long are closed, whatever has come meanwhile.
    idle: Option<Duration>,
    requests: AtomicU64,
    connections: AtomicU64,
}

impl Shared {
    pub(super) fn answer(&self, asked: &Asked) -> Answer {
        self.requests.fetch_add(1, Ordering::SeqCst);
        (self.answers)(asked)
    }
}

/// Serves until it is dropped; its connections break then.
pub struct Application {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("requests", &self.requests())
            .finish_non_exhaustive()
    }
}

impl Application {
    /// HTTP/1 and HTTP/2 by prior knowledge.
    #[must_use]
    pub fn start(
        listener: net::TcpListener,
        answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::with(listener, None, answers)
    }

    /// Closes HTTP/1 connections that nobody used for so long.
    #[must_use]
    pub fn impatient(
        listener: net::TcpListener,
        idle: Duration,
        answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::with(listener, Some(idle), answers)
    }

    fn with(
        listener: net::TcpListener,
        idle: Option<Duration>,
        answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            answers: Box::new(answers),
            idle,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            super::callers::runtime().block_on(async {
                tokio::select! {
                    () = accept(listener, own) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Requests that arrived whole.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections that were ever accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) && !thread::panicking() {
            panic!("the application panicked");
        }
    }
}

async fn accept(listener: net::TcpListener, shared: Arc<Shared>) {
    listener
        .set_nonblocking(true)
        .expect("an open socket can be told");
    let listener = TcpListener::from_std(listener).expect("a runtime runs");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                // Small answers go at once.
                let _ = stream.set_nodelay(true);
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connection(stream, Arc::clone(&shared), number));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, number: u64) {
    let mut first = [0; 3];
    while let Ok(1..3) = stream.peek(&mut first).await {
        tokio::task::yield_now().await;
    }
    // How it ended is the caller's to judge.
    if &first == b"PRI" {
        let _ = super::two::serve(stream, &shared, number).await;
    } else {
        let _ = http1(stream, &shared, number).await;
    }
}

async fn http1(mut stream: TcpStream, shared: &Shared, number: u64) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        if buffer.is_empty() {
            let first = stream.read_buf(&mut buffer);
            let read = match shared.idle {
                None => first.await?,
                Some(idle) => match timeout(idle, first).await {
                    Ok(read) => read?,
                    Err(_) => return Ok(()),
                },
            };
            if read == 0 {
                return Ok(());
            }
        }
        let head = head(&mut stream, &mut buffer).await?;
        let asked = asked(&mut stream, &mut buffer, &head, number).await?;
        let answer = shared.answer(&asked);
        sleep(answer.after).await;
        if answer.is_cut {
            return Ok(());
        }
        write(&mut stream, &answer).await?;
    }
}

pub(super) async fn head(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = buffer.split_to(end + 4);
            return Ok(String::from_utf8_lossy(&head).into_owned());
        }
        more(stream, buffer).await?;
    }
}

pub(super) async fn more(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

pub(super) fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
}

pub(super) fn length(head: &str) -> usize {
    fields(head)
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or_default()
}

async fn asked(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    head: &str,
    connection: u64,
) -> io::Result<Asked> {
    let body = length(head);
    let mut left = body;
    loop {
        let there = left.min(buffer.len());
        buffer.advance(there);
        left -= there;
        if left == 0 {
            break;
        }
        more(stream, buffer).await?;
    }
    let mut words = head.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    Ok(Asked {
        method: word(),
        path: word(),
        fields: fields(head)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body,
        connection,
    })
}

async fn write(stream: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let mut text = format!(
        "HTTP/1.1 {} Said\r\ncontent-length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    if answer.pause.is_zero() {
        bytes.extend(&answer.body);
        return stream.write_all(&bytes).await;
    }
    stream.write_all(&bytes).await?;
    sleep(answer.pause).await;
    stream.write_all(&answer.body).await
}

/// Of an answer or its trailers.
pub(super) fn header_map(fields: &[(&'static str, String)]) -> HeaderMap {
    fields
        .iter()
        .filter_map(|(name, value)| {
            Some((http::HeaderName::from_static(name), value.parse().ok()?))
        })
        .collect()
}
