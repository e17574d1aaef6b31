//! An application that keeps every byte it is sent and answers by a script.
//!
//! What the mesh refuses must never show up here, so it reads sockets and
//! nothing else: no parser that could hide a byte. It works on a listener that
//! a test opened in a pod.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

use socket2::SockRef;
use weft_proxy::seams::http1;

/// What to do after bytes have arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Say {
    /// Nothing yet.
    Wait,
    Bytes(Vec<u8>),
    /// And then an orderly end.
    Last(Vec<u8>),
    /// A broken connection.
    Reset,
}

/// A running application. Dropping it closes its listener.
#[derive(Debug)]
pub struct Recorder {
    heard: Arc<Heard>,
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default, Debug)]
struct Heard {
    pieces: Mutex<Vec<Piece>>,
    connections: Mutex<usize>,
}

/// What one read brought.
#[derive(Debug)]
struct Piece {
    connection: usize,
    bytes: Vec<u8>,
}

impl Heard {
    fn pieces(&self) -> MutexGuard<'_, Vec<Piece>> {
        self.pieces.lock().expect("no connection panics")
    }
}

impl Recorder {
    /// `script` is asked after each read with what the connection has sent
    /// since it last said something.
    ///
    /// # Panics
    /// When the listener can't be shared with a thread.
    #[must_use]
    pub fn start(
        listener: TcpListener,
        script: impl Fn(&[u8]) -> Say + Send + Sync + 'static,
    ) -> Self {
        let heard = Arc::new(Heard::default());
        let script = Arc::new(script);
        let own = listener.try_clone().expect("descriptors suffice");
        let to = Arc::clone(&heard);
        let accepting = thread::spawn(move || {
            for stream in own.incoming() {
                let Ok(stream) = stream else { return };
                let connection = {
                    let mut connections = to.connections.lock().expect("no connection panics");
                    *connections += 1;
                    *connections
                };
                let (to, script) = (Arc::clone(&to), Arc::clone(&script));
                thread::spawn(move || serve(stream, connection, &to, &*script));
            }
        });
        Self {
            heard,
            listener,
            accepting: Some(accepting),
        }
    }

    /// Answers each whole request with 200 and no body.
    #[must_use]
    pub fn http(listener: TcpListener) -> Self {
        Self::start(listener, |said| match whole_requests(said) {
            0 => Say::Wait,
            count => Say::Bytes(OK.repeat(count)),
        })
    }

    /// Sends back what it gets.
    #[must_use]
    pub fn echo(listener: TcpListener) -> Self {
        Self::start(listener, |said| Say::Bytes(said.to_vec()))
    }

    /// Answers the head of each request with these bytes, and closes.
    #[must_use]
    pub fn saying(listener: TcpListener, answer: &'static [u8]) -> Self {
        Self::start(listener, |said| match has_head(said) {
            false => Say::Wait,
            true => Say::Last(answer.to_vec()),
        })
    }

    /// All that came, over every connection, in the order of arrival.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        joined(&self.heard.pieces())
    }

    /// The same, and forgets it.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        joined(&std::mem::take(&mut *self.heard.pieces()))
    }

    /// The same, what each connection brought by itself.
    #[must_use]
    pub fn take_by_connection(&self) -> Vec<Vec<u8>> {
        let mut came = BTreeMap::<usize, Vec<u8>>::new();
        for piece in std::mem::take(&mut *self.heard.pieces()) {
            came.entry(piece.connection)
                .or_default()
                .extend(piece.bytes);
        }
        came.into_values().collect()
    }

    /// Connections so far.
    ///
    /// # Panics
    /// When a connection's thread has.
    #[must_use]
    pub fn connections(&self) -> usize {
        *self.heard.connections.lock().expect("no connection panics")
    }
}

fn joined(pieces: &[Piece]) -> Vec<u8> {
    pieces
        .iter()
        .flat_map(|piece| piece.bytes.iter().copied())
        .collect()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

impl Drop for Recorder {
    fn drop(&mut self) {
        // Linux ends a blocked accept so.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Does a head end in these bytes?
#[must_use]
pub fn has_head(said: &[u8]) -> bool {
    said.windows(4).any(|window| window == b"\r\n\r\n")
}

/// How many requests are complete in these bytes and nothing follows them.
fn whole_requests(said: &[u8]) -> usize {
    let read = http1::read_requests([said]);
    match read.end {
        http1::End::Clean => read.messages.len(),
        _ => 0,
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    heard: &Heard,
    script: &(dyn Fn(&[u8]) -> Say + Send + Sync),
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut unanswered = Vec::new();
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let fresh = buffer.get(..read).unwrap_or_default();
        heard.pieces().push(Piece {
            connection,
            bytes: fresh.to_vec(),
        });
        unanswered.extend_from_slice(fresh);
        let (bytes, is_last) = match script(&unanswered) {
            Say::Wait => continue,
            Say::Bytes(bytes) => (bytes, false),
            Say::Last(bytes) => (bytes, true),
            Say::Reset => {
                let _ = SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
                return;
            }
        };
        unanswered.clear();
        if stream.write_all(&bytes).is_err() {
            return;
        }
        if is_last {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}
