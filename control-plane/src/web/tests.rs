//! Over real sockets; whatever has to pass in time is moved by eviction or by
//! the paused clock.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::runtime::{self, Task};

/// Only reached when a test fails.
const PATIENCE: Duration = Duration::from_secs(30);
const PLACES: usize = 4;

async fn served(leaving: watch::Receiver<bool>) -> (SocketAddr, Task) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server {
        listener: Listener::Tcp(listener),
        tls: None,
        limits: Limits {
            places: gate::Limits {
                most: PLACES,
                most_of_one: PLACES,
                most_waiting: PLACES,
            },
            idle: Duration::from_secs(5),
            life: Duration::from_secs(60),
            head: 16 * 1024,
        },
        answers: Arc::new(|_, pass| {
            Box::pin(async move {
                let _turn = pass.begin();
                Response::new(Full::new(Bytes::from_static(b"here")))
            })
        }),
        leaving,
    };
    (address, runtime::spawn(server.run()))
}

async fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let question = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(question).await.unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer));
    read.await.expect("an answer in time").unwrap();
    answer
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let (address, _server) = served(watch::channel(false).1).await;
    let mut silent = Vec::new();
    for beginning in [&b""[..], b"GET / HTTP/1.1\r\nhost"] {
        for _ in 0..2 * PLACES {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(beginning).await.unwrap();
            silent.push(stream);
        }
    }
    assert!(ask(address).await.ends_with("here"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_is_closed_in_moments() {
    let (address, _server) = served(watch::channel(false).1).await;
    let since = Instant::now();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    silent.read_to_end(&mut nothing).await.unwrap();
    assert!(since.elapsed() < 2 * FIRST_HEAD, "{:?}", since.elapsed());
}

#[tokio::test]
async fn who_asks_a_process_that_leaves_is_answered_and_sent_elsewhere() {
    let (leave, leaving) = watch::channel(false);
    let (address, _server) = served(leaving).await;
    leave.send_replace(true);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer));
    read.await.expect("the end in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}
