//! Two ends of a connection that say and hear exact bytes, by a script.
//!
//! The application and the client of the fidelity tests: neither normalises
//! anything, so what a proxy between them changed is seen. Sockets come from
//! `world`'s pods. `differences` between two runs are for the test to judge;
//! `messages` takes HTTP/1 bytes apart where framing may differ between hops.

use std::{
    fmt,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::SockRef;
use tokio::time::Instant;

use crate::wait;

/// For a single step; long enough for a loaded machine.
const STEP: Duration = Duration::from_secs(10);

/// Connections that close without a word, for one that speaks.
const TRIALS: usize = 5;

/// What one end does next.
#[derive(Clone, Debug)]
pub enum Step {
    Send(Vec<u8>),
    /// Until these bytes have been heard, from the last such point on.
    Hear(&'static str),
    /// The same, with a patience of its own.
    HearWithin(Duration, &'static str),
    /// Until the other end has said everything.
    HearAll,
    /// Nothing may come for so long.
    Silence(Duration),
    /// Says no more, still listens.
    HalfClose,
    /// RST.
    Reset,
}

/// Sends text.
#[must_use]
pub fn send(text: impl AsRef<[u8]>) -> Step {
    Step::Send(text.as_ref().to_vec())
}

/// How a connection stood when the script was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing was heard of an end.
    Open,
    Closed,
    Reset,
    /// What the script waited for did not come in time.
    TimedOut,
}

/// All that one end heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub bytes: Vec<u8>,
    pub end: End,
}

impl Heard {
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Plays a script; the connection closes at its end.
#[must_use]
pub fn play(mut stream: TcpStream, steps: &[Step]) -> Heard {
    stream.set_write_timeout(Some(STEP)).expect("not zero");
    let mut heard = Heard {
        bytes: Vec::new(),
        end: End::Open,
    };
    let mut from = 0;
    for step in steps {
        match step {
            // A peer that is gone is noticed where we listen.
            Step::Send(bytes) => drop(stream.write_all(bytes)),
            Step::Hear(text) => from += hear(&mut stream, &mut heard, from, (STEP, text)),
            Step::HearWithin(time, text) => {
                from += hear(&mut stream, &mut heard, from, (*time, text));
            }
            Step::HearAll => listen(&mut stream, &mut heard, STEP, |_| false),
            Step::Silence(time) => {
                let before = heard.bytes.len();
                listen(&mut stream, &mut heard, *time, |bytes| bytes.len() > before);
                if heard.end == End::TimedOut {
                    heard.end = End::Open;
                }
            }
            Step::HalfClose => drop(stream.shutdown(Shutdown::Write)),
            Step::Reset => {
                let lingering = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                lingering.expect("an open socket can be told");
                return heard;
            }
        }
        if heard.end != End::Open && heard.end != End::Closed {
            break;
        }
    }
    heard
}

/// How many bytes further the text ends.
fn hear(stream: &mut TcpStream, heard: &mut Heard, from: usize, what: (Duration, &str)) -> usize {
    let (patience, text) = what;
    let found = |bytes: &[u8]| position(bytes.get(from..)?, text.as_bytes());
    listen(stream, heard, patience, |bytes| found(bytes).is_some());
    found(&heard.bytes).map_or(0, |at| at + text.len())
}

fn listen(
    stream: &mut TcpStream,
    heard: &mut Heard,
    patience: Duration,
    enough: impl Fn(&[u8]) -> bool,
) {
    let end = Instant::now() + patience;
    let mut buffer = vec![0; 64 * 1024];
    while heard.end == End::Open && !enough(&heard.bytes) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            heard.end = End::TimedOut;
            return;
        }
        stream.set_read_timeout(Some(left)).expect("not zero");
        match stream.read(&mut buffer) {
            Ok(0) => heard.end = End::Closed,
            Ok(read) => heard.bytes.extend(buffer.get(..read).unwrap_or_default()),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => heard.end = End::TimedOut,
                ErrorKind::Interrupted => {}
                _ => heard.end = End::Reset,
            },
        }
    }
}

/// An application that plays its scripts, one for each connection in turn.
#[derive(Debug)]
pub struct Application(JoinHandle<Vec<Heard>>);

impl Application {
    #[must_use]
    pub fn start(listener: TcpListener, scripts: Vec<Vec<Step>>) -> Self {
        Self(thread::spawn(move || {
            let mut all = Vec::new();
            for script in &scripts {
                // A proxy may have tried it for a client that had not spoken yet.
                let is_trial = |heard: &Heard| heard.bytes.is_empty() && heard.end != End::Open;
                let played = std::iter::from_fn(|| Some(play(accept(&listener)?, script)));
                all.extend(played.take(TRIALS).find(|heard| !is_trial(heard)));
            }
            all
        }))
    }

    /// What it heard on each connection that came.
    ///
    /// # Panics
    /// When a script panicked.
    #[must_use]
    pub fn heard(self) -> Vec<Heard> {
        self.0.join().expect("scripts don't panic")
    }
}

/// An application that does the same with every connection, each on a thread
/// of its own, for as long as it is held.
#[derive(Debug)]
pub struct Server {
    is_over: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    #[must_use]
    pub fn start(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (serve, over) = (Arc::new(serve), Arc::clone(&is_over));
        listener
            .set_nonblocking(true)
            .expect("an open socket can be told");
        let accepting = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let Some((stream, _)) = wait::within(TURN, || listener.accept().ok()) else {
                    continue;
                };
                stream
                    .set_nonblocking(false)
                    .expect("an open socket can be told");
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self {
            is_over,
            accepting: Some(accepting),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

/// How soon a server notices that it is over.
const TURN: Duration = Duration::from_millis(50);

/// The next connection, if one comes in time.
#[must_use]
pub fn accept(listener: &TcpListener) -> Option<TcpStream> {
    listener
        .set_nonblocking(true)
        .expect("an open socket can be told");
    let (stream, _) = wait::within(STEP, || listener.accept().ok())?;
    stream
        .set_nonblocking(false)
        .expect("an open socket can be told");
    Some(stream)
}

fn position(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|it| it == text)
}

/// An HTTP/1 message without its framing.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// First line and fields as they came, without those of the framing.
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(
            f,
            "{:?} body {body:?} trailers {:?}",
            self.head, self.trailers
        )
    }
}

/// Takes well-formed HTTP/1 bytes apart. A message without a length has none
/// when `bodiless` says so by its first line, else lasts until the end.
#[must_use]
pub fn messages(mut bytes: &[u8], bodiless: impl Fn(&str) -> bool) -> Vec<Message> {
    let mut all = Vec::new();
    while let Some(at) = position(bytes, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default()).into_owned();
        bytes = bytes.get(at + 4..).unwrap_or_default();
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(':'));
            fields
                .find(|it| it.0.eq_ignore_ascii_case(name))
                .map(|it| it.1.trim().to_owned())
        };
        let mut message = Message {
            head: head.clone(),
            body: Vec::new(),
            trailers: String::new(),
        };
        if bodiless(&head) {
            // Ends with its head.
        } else if field("transfer-encoding").is_some_and(|it| it.ends_with("chunked")) {
            bytes = chunks(bytes, &mut message);
        } else {
            let length = field("content-length").and_then(|it| it.parse().ok());
            let length = length.unwrap_or(bytes.len()).min(bytes.len());
            message.body = bytes.get(..length).unwrap_or_default().to_vec();
            bytes = bytes.get(length..).unwrap_or_default();
        }
        all.push(message);
    }
    all
}

fn chunks<'a>(mut bytes: &'a [u8], message: &mut Message) -> &'a [u8] {
    while let Some(at) = position(bytes, b"\r\n") {
        let line = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default()).into_owned();
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).unwrap_or_default();
        bytes = bytes.get(at + 2..).unwrap_or_default();
        if size == 0 {
            let end = if bytes.starts_with(b"\r\n") {
                Some(0)
            } else {
                position(bytes, b"\r\n\r\n").map(|it| it + 2)
            };
            let end = end.unwrap_or(bytes.len());
            message.trailers =
                String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
            return bytes.get(end + 2..).unwrap_or_default();
        }
        message.body.extend(bytes.get(..size).unwrap_or_default());
        bytes = bytes.get(size + 2..).unwrap_or_default();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_lengths_are_taken_apart() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
        let all = messages(bytes, |_| false);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].body, b"abc");
        assert_eq!(all[0].trailers, "T: 1\r\n");
        assert_eq!(all[1].body, b"x");
    }
}
