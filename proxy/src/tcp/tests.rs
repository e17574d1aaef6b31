//! Carrying over real loopback sockets, bare and within TLS.

use std::{future, io, sync::Arc};

use proptest::prelude::*;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, client,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    },
};

use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// A connection on which the kernel holds next to nothing.
async fn narrow_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    SockRef::from(&listener).set_send_buffer_size(1).unwrap();
    let near = TcpSocket::new_v4().unwrap();
    near.set_recv_buffer_size(1).unwrap();
    let near = near.connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// Client and server, and the two connections to carry between.
async fn ends() -> (TcpStream, TcpStream, TcpStream, TcpStream) {
    let (client, downstream) = pair().await;
    let (server, upstream) = pair().await;
    (client, downstream, upstream, server)
}

async fn plain(downstream: TcpStream, upstream: TcpStream, progress: &Progress) -> Ended {
    carry(
        downstream,
        upstream,
        Prefixes::default(),
        None,
        progress,
        future::pending(),
    )
    .await
}

async fn read_all(mut stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.map(|_| all)
}

async fn is_reset(stream: impl AsyncRead + Unpin) -> bool {
    read_all(stream)
        .await
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn a_half_close_is_passed_on_and_the_answer_still_comes() {
    let (mut client, downstream, upstream, mut server) = ends().await;
    let progress = Progress::default();
    let client_side = async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        read_all(client).await.unwrap()
    };
    let server_side = async {
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        question
    };
    let (ended, answer, question) = tokio::join!(
        plain(downstream, upstream, &progress),
        client_side,
        server_side
    );
    assert_eq!(
        (ended, &answer[..], &question[..]),
        (Ended::Finished, &b"answer"[..], &b"question"[..])
    );
    assert_eq!(
        (progress.to_upstream.get(), progress.to_downstream.get()),
        (8, 6)
    );
}

#[tokio::test]
async fn what_was_read_before_is_written_first() {
    let (mut client, downstream, upstream, mut server) = ends().await;
    let prefixes = Prefixes {
        from_downstream: "hello ".into(),
        from_upstream: "220 ".into(),
    };
    let progress = Progress::default();
    let carried = carry(
        downstream,
        upstream,
        prefixes,
        None,
        &progress,
        future::pending(),
    );
    client.write_all(b"server").await.unwrap();
    server.write_all(b"ready").await.unwrap();
    client.shutdown().await.unwrap();
    server.shutdown().await.unwrap();
    let (ended, said, answered) = tokio::join!(carried, read_all(server), read_all(client));
    assert_eq!(ended, Ended::Finished);
    assert_eq!(
        (said.unwrap(), answered.unwrap()),
        (b"hello server".to_vec(), b"220 ready".to_vec())
    );
    assert_eq!(progress.to_upstream.get(), 12);
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset_after_the_bytes_before_it() {
    for from_client in [true, false] {
        let (client, downstream, upstream, server) = ends().await;
        let (mut first, mut second) = if from_client {
            (client, server)
        } else {
            (server, client)
        };
        let progress = Progress::default();
        let act = async {
            first.write_all(b"last words").await.unwrap();
            let mut words = [0; 10];
            second.read_exact(&mut words).await.unwrap();
            sock::reset(first);
            assert!(is_reset(second).await);
        };
        let (ended, ()) = tokio::join!(plain(downstream, upstream, &progress), act);
        let expected = if from_client {
            Ended::DownstreamReset
        } else {
            Ended::UpstreamReset
        };
        assert_eq!(ended, expected);
    }
}

#[tokio::test]
async fn a_server_that_answers_and_closes_is_heard_though_the_client_still_sends() {
    let (mut client, downstream, upstream, mut server) = ends().await;
    let progress = Progress::default();
    let client_side = async {
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.unwrap();
        // The server is gone: sooner or later this is refused.
        while client.write_all(&[0; 1024]).await.is_ok() {
            tokio::task::yield_now().await;
        }
        answer
    };
    let server_side = async {
        server.write_all(b"answer").await.unwrap();
        drop(server);
    };
    let (ended, answer, ()) = tokio::join!(
        plain(downstream, upstream, &progress),
        client_side,
        server_side
    );
    assert_eq!((ended, &answer), (Ended::UpstreamReset, b"answer"));
}

/// A server says `said` and leaves; the client first goes on talking, then
/// reads. What it read, and how that ended.
async fn talk_to_a_server_that_left(said: &[u8]) -> (Vec<u8>, io::Result<usize>, Ended) {
    let (mut client, downstream) = narrow_pair().await;
    let (mut server, upstream) = pair().await;
    let progress = Progress::default();
    let talk = async {
        server.write_all(said).await.unwrap();
        drop(server);
        while progress.to_downstream.get() == 0 {
            tokio::task::yield_now().await;
        }
        // The server's kernel refuses the first, and ours then the others.
        for _ in 0..10 {
            client.write_all(b"?").await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut heard = Vec::new();
        let end = client.read_to_end(&mut heard).await;
        while client.write_all(b"?").await.is_ok() {
            tokio::task::yield_now().await;
        }
        (heard, end)
    };
    let (ended, (heard, end)) = tokio::join!(plain(downstream, upstream, &progress), talk);
    (heard, end, ended)
}

#[tokio::test]
async fn what_a_server_said_before_it_left_reaches_a_client_that_is_slow_to_read() {
    // Little enough to be here, with its end, before the first refusal.
    let said = pattern(40_000, 5);
    let (heard, end, ended) = talk_to_a_server_that_left(&said).await;
    assert!(
        heard == said && end.is_ok(),
        "{} of {}, {end:?}",
        heard.len(),
        said.len()
    );
    assert_eq!(ended, Ended::UpstreamReset);
}

#[tokio::test]
async fn what_was_cut_off_never_looks_complete() {
    // More than fits on the way: the reset destroys the rest.
    let said = pattern(400_000, 5);
    let (heard, end, ended) = talk_to_a_server_that_left(&said).await;
    assert!(said.starts_with(&heard));
    assert!(
        heard == said || end.is_err(),
        "{} of {}, {end:?}",
        heard.len(),
        said.len()
    );
    assert_eq!(ended, Ended::UpstreamReset);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_owns_no_buffer_and_a_busy_one_gives_it_back() {
    let (mut client, downstream, upstream, mut server) = ends().await;
    let progress = Progress::default();
    let talk = async {
        let mut small = [1; 100];
        client.write_all(&small).await.unwrap();
        server.read_exact(&mut small).await.unwrap();
        assert_eq!(progress.buffered.get(), 0);

        let bulk = vec![2; 4 << 20];
        let mut received = vec![0; bulk.len()];
        let (sent, _) = tokio::join!(client.write_all(&bulk), server.read_exact(&mut received));
        sent.unwrap();
        assert!(received == bulk);
        assert_eq!(progress.buffered.get(), 256 << 10);

        sleep(RELEASE * 2).await;
        assert_eq!(progress.buffered.get(), 0);
        client.write_all(&small).await.unwrap();
        server.read_exact(&mut small).await.unwrap();
        assert_eq!(progress.buffered.get(), 0);
        client.shutdown().await.unwrap();
        server.shutdown().await.unwrap();
    };
    let (ended, ()) = tokio::join!(plain(downstream, upstream, &progress), talk);
    assert_eq!(ended, Ended::Finished);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_costs_a_bounded_buffer_that_is_kept_while_full() {
    let (mut client, downstream, upstream, mut server) = ends().await;
    let progress = Progress::default();
    let bulk: Vec<u8> = (0..16 << 20).map(|at: u32| (at / 251) as u8).collect();
    let send = async {
        client.write_all(&bulk).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let receive = async {
        sleep(RELEASE * 10).await;
        assert_eq!(progress.buffered.get(), 256 << 10);
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert!(received == bulk);
        server.shutdown().await.unwrap();
    };
    let (ended, (), ()) = tokio::join!(plain(downstream, upstream, &progress), send, receive);
    assert_eq!(ended, Ended::Finished);
}

#[tokio::test]
async fn a_buffer_grows_to_its_limit_and_no_further() {
    for (buffer, held) in [(0, 0), (100_000, 100_000)] {
        let (mut client, downstream, upstream, mut server) = ends().await;
        let progress = Progress::default();
        let limits = Limits { idle: None, buffer };
        let bulk = pattern(4 << 20, 7);
        let talk = async {
            let mut received = vec![0; bulk.len()];
            let (sent, _) = tokio::join!(client.write_all(&bulk), server.read_exact(&mut received));
            sent.unwrap();
            assert!(received == bulk);
            assert_eq!(progress.buffered.get(), held);
            drop((client, server));
        };
        let none = Prefixes::default();
        let carried = carry(
            downstream,
            upstream,
            none,
            limits,
            &progress,
            future::pending(),
        );
        assert_eq!(tokio::join!(carried, talk).0, Ended::Finished);
    }
}

#[tokio::test(start_paused = true)]
async fn silence_in_both_directions_ends_it_after_the_idle_timeout() {
    let (client, downstream, upstream, mut server) = ends().await;
    let progress = Progress::default();
    let idle = Duration::from_secs(60);
    let started = Instant::now();
    let carried = carry(
        downstream,
        upstream,
        Prefixes::default(),
        Some(idle),
        &progress,
        future::pending(),
    );
    let talk = async {
        // One direction is enough to keep it.
        for _ in 0..3 {
            sleep(idle * 3 / 4).await;
            server.write_all(b"tick").await.unwrap();
        }
    };
    let (ended, ()) = tokio::join!(carried, talk);
    assert_eq!(ended, Ended::Idle);
    let took = started.elapsed();
    assert!(took >= idle * 13 / 4 && took < idle * 14 / 4, "{took:?}");
    assert!(is_reset(client).await && is_reset(server).await);
}

#[tokio::test]
async fn a_cut_resets_both_sides_and_says_why() {
    let (client, downstream, upstream, server) = ends().await;
    let progress = Progress::default();
    let cut = future::ready(Reason::AccessDenied);
    let ended = carry(
        downstream,
        upstream,
        Prefixes::default(),
        None,
        &progress,
        cut,
    )
    .await;
    assert_eq!(ended, Ended::Cut(Reason::AccessDenied));
    assert!(is_reset(client).await && is_reset(server).await);
}

/// A mesh connection: the caller's proxy and the called one's.
impl Leg for client::TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

async fn tls_pair() -> (client::TlsStream<TcpStream>, server::TlsStream<TcpStream>) {
    tls_over(pair().await).await
}

async fn tls_over(
    (near, far): (TcpStream, TcpStream),
) -> (client::TlsStream<TcpStream>, server::TlsStream<TcpStream>) {
    let key = rcgen::generate_simple_self_signed(vec!["cart.shop".to_owned()]).unwrap();
    let certificate = CertificateDer::from(key.cert.der().to_vec());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let connector = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let acceptor = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate],
            PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
        )
        .unwrap();
    let connected =
        TlsConnector::from(Arc::new(connector)).connect("cart.shop".try_into().unwrap(), near);
    let accepted = TlsAcceptor::from(Arc::new(acceptor)).accept(far);
    let (connected, accepted) = tokio::join!(connected, accepted);
    (connected.unwrap(), accepted.unwrap())
}

#[tokio::test]
async fn through_two_proxies_and_tls_nothing_is_lost_and_half_closes_hold() {
    let (mut client, downstream) = pair().await;
    let (mut server, upstream) = pair().await;
    let (near, far) = tls_pair().await;
    let (outbound, inbound) = (Progress::default(), Progress::default());
    let caller = carry(
        downstream,
        near,
        Prefixes::default(),
        None,
        &outbound,
        future::pending(),
    );
    let called = carry(
        far,
        upstream,
        Prefixes::default(),
        None,
        &inbound,
        future::pending(),
    );
    let bulk: Vec<u8> = (0..3 << 20).map(|at: u32| (at / 253) as u8).collect();
    let client_side = async {
        client.write_all(&bulk).await.unwrap();
        client.shutdown().await.unwrap();
        read_all(client).await.unwrap()
    };
    let server_side = async {
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        server.write_all(&received).await.unwrap();
        drop(server);
    };
    let (caller, called, echoed, ()) = tokio::join!(caller, called, client_side, server_side);
    assert_eq!((caller, called), (Ended::Finished, Ended::Finished));
    assert!(echoed == bulk);
}

#[tokio::test]
async fn what_tls_took_is_sent_though_nothing_follows() {
    let (mut client, downstream) = pair().await;
    // The server's half of TLS is the one with little room to send.
    let (mut reader, writer) = tls_over(narrow_pair().await).await;
    let progress = Progress::default();
    let said = pattern(48 << 10, 9);
    let talk = async {
        client.write_all(&said).await.unwrap();
        while progress.to_upstream.get() < said.len() as u64 {
            tokio::task::yield_now().await;
        }
        let mut heard = vec![0; said.len()];
        reader.read_exact(&mut heard).await.unwrap();
        assert!(heard == said);
    };
    let carried = carry(
        downstream,
        writer,
        Prefixes::default(),
        None,
        &progress,
        future::pending(),
    );
    tokio::select! {
        ended = carried => panic!("{ended:?}"),
        heard = tokio::time::timeout(Duration::from_secs(10), talk) => heard.unwrap(),
    }
}

#[tokio::test]
async fn a_reset_crosses_tls_without_looking_like_an_end() {
    for from_client in [true, false] {
        let (client, downstream) = pair().await;
        let (server, upstream) = pair().await;
        let (near, far) = tls_pair().await;
        let (outbound, inbound) = (Progress::default(), Progress::default());
        let (first, second) = if from_client {
            (client, server)
        } else {
            (server, client)
        };
        let act = async {
            sock::reset(first);
            assert!(is_reset(second).await);
        };
        let caller = carry(
            downstream,
            near,
            Prefixes::default(),
            None,
            &outbound,
            future::pending(),
        );
        let called = carry(
            far,
            upstream,
            Prefixes::default(),
            None,
            &inbound,
            future::pending(),
        );
        let (caller, called, ()) = tokio::join!(caller, called, act);
        let expected = if from_client {
            Ended::DownstreamReset
        } else {
            Ended::UpstreamReset
        };
        assert_eq!((caller, called), (expected, expected));
    }
}

#[tokio::test]
async fn tls_that_ends_without_close_notify_was_cut_off() {
    let (client, downstream) = pair().await;
    let (near, far) = tls_pair().await;
    let (mut bare, _session) = far.into_inner();
    bare.shutdown().await.unwrap();
    let progress = Progress::default();
    let ended = carry(
        downstream,
        near,
        Prefixes::default(),
        None,
        &progress,
        future::pending(),
    )
    .await;
    assert_eq!(ended, Ended::UpstreamReset);
    assert!(is_reset(client).await);
}

/// What one end does: sizes of its writes, and whether it waits for the other's
/// FIN before it sends its own.
type Script = (Vec<usize>, bool);

fn script() -> impl Strategy<Value = Script> {
    (
        prop::collection::vec(
            prop_oneof![1..64usize, 4000..4200usize, 1..200_000usize],
            0..12,
        ),
        any::<bool>(),
    )
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 31 + at / 257 + seed) as u8)
        .collect()
}

/// Plays a script on a connection; what it received.
async fn play(mut stream: TcpStream, (sizes, waits): Script, seed: usize) -> Vec<u8> {
    let all = pattern(sizes.iter().sum(), seed);
    let (mut reader, mut writer) = stream.split();
    let mut received = Vec::new();
    let (fin_seen, see_fin) = tokio::sync::oneshot::channel();
    let write = async {
        let mut rest = all.as_slice();
        for size in sizes {
            let (piece, later) = rest.split_at(size);
            writer.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
            rest = later;
        }
        if waits {
            see_fin.await.unwrap();
        }
        writer.shutdown().await.unwrap();
    };
    let read = async {
        reader.read_to_end(&mut received).await.unwrap();
        let _nobody_waits = fin_seen.send(());
    };
    tokio::join!(write, read);
    received
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_byte_is_lost_whatever_the_chunks_and_the_order_of_ends(
        client in script(), mut server in script(), prefix in 0..5000usize, over_tls: bool,
    ) {
        // Somebody has to end it.
        server.1 &= !client.1;
        let length = |script: &Script| script.0.iter().sum::<usize>();
        let (up, down) = (length(&client), length(&server));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, downstream) = pair().await;
            let (far, upstream) = pair().await;
            let prefixes = Prefixes { from_downstream: pattern(prefix, 3).into(), from_upstream: Bytes::new() };
            let progress = Progress::default();
            let carried = async {
                if over_tls {
                    let (sender, receiver) = tls_pair().await;
                    let other = Progress::default();
                    let caller = carry(downstream, sender, prefixes, None, &progress, future::pending());
                    let called = carry(receiver, upstream, Prefixes::default(), None, &other, future::pending());
                    let (caller, called) = tokio::join!(caller, called);
                    assert_eq!(called, Ended::Finished);
                    caller
                } else {
                    carry(downstream, upstream, prefixes, None, &progress, future::pending()).await
                }
            };
            let (ended, at_client, at_server) = tokio::join!(carried, play(near, client, 1), play(far, server, 2));
            assert_eq!(ended, Ended::Finished);
            assert!(at_client == pattern(down, 2));
            assert!(at_server == [pattern(prefix, 3), pattern(up, 1)].concat());
            assert_eq!(progress.to_upstream.get(), (up + prefix) as u64);
        });
    }
}
