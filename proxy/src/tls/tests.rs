//! Both ends of real handshakes over loopback: who is refused, what each end
//! calls it, and that no byte of the application passes.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use rcgen::ExtendedKeyUsagePurpose;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, NamedGroup, SupportedProtocolVersion,
        crypto::aws_lc_rs,
        pki_types::ServerName,
        version::{TLS12, TLS13},
    },
};

use super::*;
use crate::{
    around::Prefixed,
    identity::{Peer, SpiffeId},
    tls::{
        accept::{Accepted, accept},
        authority::{Authority, BOTH, NOW, Wanted},
        certs::{Bundle, Store},
        connect::{Connected, connect},
        verify::Verifier,
    },
};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const SHOP: &str = "spiffe://cluster.local/ns/shop/sa/shop";
const REQUEST: &[u8] = b"request";
const ONLY_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// What the caller's proxy says of it, with the first byte of the answer.
async fn call(tcp: TcpStream, expected: &str, alpn: Alpn, store: &Store) -> Result<(), Reason> {
    let Connected {
        mut stream,
        refusal,
        session,
    } = connect(tcp, &id(expected), alpn, store).await?;
    assert_eq!(session.peer, id(expected));
    let answer = async {
        stream.write_all(REQUEST).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    match answer.await {
        Ok(_) => Ok(()),
        Err(_) => {
            // A write may break first; the alert is behind it.
            let mut rest = Vec::new();
            let _: io::Result<usize> = stream.read_to_end(&mut rest).await;
            Err(refusal.reason().expect("a refusal has a reason"))
        }
    }
}

/// What the called proxy says of it, and who called.
async fn answer(tcp: TcpStream, store: &Store) -> Result<(Peer, Alpn), Reason> {
    let Accepted {
        mut stream,
        peer,
        alpn,
        ..
    } = accept(Prefixed::new(BytesMut::new(), tcp), store).await?;
    let mut request = [0; REQUEST.len()];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(request, REQUEST);
    stream.write_all(b"a").await.unwrap();
    stream.shutdown().await.unwrap();
    Ok((peer, alpn))
}

type Met = (Result<(), Reason>, Result<(Peer, Alpn), Reason>);

async fn meet(client: &Store, expected: &str, server: &Store) -> Met {
    let (near, far) = sockets().await;
    let calling = Box::pin(call(near, expected, Alpn::Http, client));
    tokio::join!(calling, Box::pin(answer(far, server)))
}

#[tokio::test]
async fn two_workloads_of_one_mesh_meet() {
    let authority = Authority::new("root");
    for alpn in [Alpn::Http, Alpn::Tcp] {
        let (near, far) = sockets().await;
        let (client, server) = (authority.store(SHOP), authority.store(CART));
        let met = tokio::join!(call(near, CART, alpn, &client), answer(far, &server));
        assert_eq!(met, (Ok(()), Ok((Peer::Identified(id(SHOP)), alpn))));
    }
}

#[tokio::test]
async fn the_first_bytes_that_detection_read_are_not_lost() {
    let authority = Authority::new("root");
    let (near, mut far) = sockets().await;
    let (client, server) = (authority.store(SHOP), authority.store(CART));
    let answering = async {
        let mut first = BytesMut::with_capacity(300);
        far.read_buf(&mut first).await.unwrap();
        accept(Prefixed::new(first, far), &server)
            .await
            .map(|accepted| accepted.peer)
    };
    let cart = id(CART);
    let connecting = connect(near, &cart, Alpn::Tcp, &client);
    let (connected, peer) = tokio::join!(connecting, answering);
    assert!(connected.is_ok());
    assert_eq!(peer.unwrap(), Peer::Identified(id(SHOP)));
}

#[tokio::test]
async fn a_server_that_is_not_the_endpoint_gets_nothing() {
    let authority = Authority::new("root");
    let met = meet(
        &authority.store(SHOP),
        CART,
        &authority.store("spiffe://cluster.local/ns/shop/sa/other"),
    )
    .await;
    assert_eq!(
        met,
        (
            Err(Reason::PeerIdentityMismatch),
            Err(Reason::CertificateRefused)
        )
    );
}

/// (what is wrong with the certificate, what its peer calls it)
fn flawed() -> Vec<(Wanted<'static>, Reason)> {
    let fine = || Wanted::of(&[CART]);
    const SERVER: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::CodeSigning];
    vec![
        (
            Wanted {
                until: -1,
                ..fine()
            },
            Reason::PeerExpired,
        ),
        (Wanted { from: 60, ..fine() }, Reason::PeerExpired),
        (Wanted::of(&[CART, SHOP]), Reason::PeerIdentityMismatch),
        (Wanted::of(&[CART, CART]), Reason::PeerIdentityMismatch),
        (
            Wanted::of(&["spiffe://other.example/ns/shop/sa/cart"]),
            Reason::PeerIdentityMismatch,
        ),
        (Wanted::of(&[]), Reason::PeerIdentityMismatch),
        (
            Wanted::of(&["https://cluster.local/ns/shop/sa/cart"]),
            Reason::PeerIdentityMismatch,
        ),
        (
            Wanted {
                is_authority: true,
                ..fine()
            },
            Reason::PeerUntrusted,
        ),
        (
            Wanted {
                purposes: SERVER,
                ..fine()
            },
            Reason::PeerUntrusted,
        ),
        (
            Wanted {
                purposes: &[],
                ..fine()
            },
            Reason::PeerUntrusted,
        ),
    ]
}

/// A store whose owner believes in its certificate, whatever is wrong with it.
fn deluded(authority: &Authority, wanted: &Wanted<'_>) -> Store {
    let store = Store::new("cluster.local", authority.bundle(), Wall::fixed(NOW));
    let (chain, key) = authority.issue(wanted);
    store.install(certs::Certificate::unchecked(
        id(CART),
        chain,
        authority::private(&key),
    ));
    store
}

#[tokio::test]
async fn a_flawed_server_is_refused_and_learns_it() {
    let authority = Authority::new("root");
    for (at, (wanted, reason)) in flawed().iter().enumerate() {
        let met = meet(&authority.store(SHOP), CART, &deluded(&authority, wanted)).await;
        assert_eq!(met, (Err(*reason), Err(Reason::CertificateRefused)), "{at}");
    }
}

#[tokio::test]
async fn a_flawed_client_is_refused_and_learns_it_late() {
    let authority = Authority::new("root");
    for (at, (wanted, reason)) in flawed().iter().enumerate() {
        let met = meet(&deluded(&authority, wanted), CART, &authority.store(CART)).await;
        assert_eq!(met, (Err(Reason::CertificateRefused), Err(*reason)), "{at}");
    }
}

#[tokio::test]
async fn a_certificate_of_the_right_purpose_alone_is_enough_for_it() {
    let authority = Authority::new("root");
    let only = |purpose: &'static [ExtendedKeyUsagePurpose], identity| {
        let uris: &'static [&str] = identity;
        deluded_as(
            &authority,
            &Wanted {
                purposes: purpose,
                ..Wanted::of(uris)
            },
        )
    };
    let client = only(&BOTH[1..], &[SHOP]);
    let server = only(&BOTH[..1], &[CART]);
    assert!(meet(&client, CART, &server).await.0.is_ok());
    let met = meet(&server, CART, &server).await;
    assert_eq!(
        met,
        (Err(Reason::CertificateRefused), Err(Reason::PeerUntrusted))
    );
}

fn deluded_as(authority: &Authority, wanted: &Wanted<'_>) -> Store {
    authority.store_of(wanted, authority.bundle())
}

#[tokio::test]
async fn a_foreign_root_is_refused_by_whoever_does_not_trust_it() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let foreign = |identity| theirs.store_of(&Wanted::of(identity), ours.bundle_with(&theirs));
    let met = meet(&ours.store(SHOP), CART, &foreign(&[CART])).await;
    assert_eq!(
        met,
        (Err(Reason::PeerUntrusted), Err(Reason::CertificateRefused))
    );
    let met = meet(&foreign(&[SHOP]), CART, &ours.store(CART)).await;
    assert_eq!(
        met,
        (Err(Reason::CertificateRefused), Err(Reason::PeerUntrusted))
    );
}

#[tokio::test]
async fn a_root_of_the_same_name_with_another_key_is_foreign() {
    let (ours, theirs) = (Authority::new("root"), Authority::new("root"));
    let client = theirs.store_of(&Wanted::of(&[SHOP]), ours.bundle());
    let met = meet(&client, CART, &ours.store(CART)).await;
    assert_eq!(
        met,
        (Err(Reason::CertificateRefused), Err(Reason::PeerUntrusted))
    );
}

#[tokio::test]
async fn without_a_valid_certificate_of_our_own_nothing_begins() {
    let authority = Authority::new("root");
    let bare = Store::new("cluster.local", authority.bundle(), Wall::fixed(NOW));
    let (near, far) = sockets().await;
    assert_eq!(
        call(near, CART, Alpn::Http, &bare).await,
        Err(Reason::CertificateMissing)
    );
    assert_eq!(answer(far, &bare).await, Err(Reason::CertificateMissing));
    let expired = authority.store_of(
        &Wanted {
            until: -1,
            ..Wanted::of(&[SHOP])
        },
        authority.bundle(),
    );
    let (near, _far) = sockets().await;
    assert_eq!(
        call(near, CART, Alpn::Http, &expired).await,
        Err(Reason::CertificateMissing)
    );
}

/// A client that is no sidecar of ours: `None` shows no certificate.
async fn stranger(
    tcp: TcpStream,
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
    certificate: Option<&str>,
) -> io::Result<u8> {
    let verifier = Verifier::new(Arc::new(authority.bundle()), "cluster.local", None);
    let builder = ClientConfig::builder_with_details(
        Arc::new(aws_lc_rs::default_provider()),
        Arc::new(Date(Wall::fixed(NOW))),
    );
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match certificate {
        Some(identity) => {
            let (chain, key) = authority.issue(&Wanted::of(&[identity]));
            builder
                .with_client_auth_cert(chain, authority::private(&key))
                .unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("cart").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    stream.write_all(REQUEST).await?;
    stream.read_u8().await
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let authority = Authority::new("root");
    let (near, far) = sockets().await;
    let server = authority.store(CART);
    let client = stranger(near, &authority, ONLY_TLS13, &["weft1-h2"], None);
    let met = tokio::join!(client, answer(far, &server));
    assert_eq!(met.1, Err(Reason::PeerUntrusted));
    assert_eq!(
        reason_of(&met.0.unwrap_err()),
        Some(Reason::CertificateRefused)
    );
}

#[tokio::test]
async fn tls_1_2_and_foreign_alpns_break_the_handshake() {
    let authority = Authority::new("root");
    let server = authority.store(CART);
    let cases: [(&[&'static SupportedProtocolVersion], &[&str]); 3] = [
        (&[&TLS12], &["weft1-h2"]),
        (&[&TLS13], &["h2"]),
        (&[&TLS13], &[]),
    ];
    for (versions, alpn) in cases {
        let (near, far) = sockets().await;
        let client = stranger(near, &authority, versions, alpn, Some(SHOP));
        let (theirs, ours) = tokio::join!(client, answer(far, &server));
        assert_eq!(ours, Err(Reason::TlsHandshake), "{alpn:?}");
        assert!(theirs.is_err());
    }
}

#[tokio::test]
async fn the_hybrid_key_exchange_is_preferred() {
    let authority = Authority::new("root");
    let (near, far) = sockets().await;
    let (client, server) = (authority.store(SHOP), authority.store(CART));
    let cart = id(CART);
    let (_, accepted) = tokio::join!(
        connect(near, &cart, Alpn::Http, &client),
        accept(Prefixed::new(BytesMut::new(), far), &server)
    );
    let stream = accepted.unwrap().stream;
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
    assert_eq!(format!("{:?}", suite.suite()), "TLS13_AES_128_GCM_SHA256");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_given_up() {
    let authority = Authority::new("root");
    let (near, _far) = sockets().await;
    let store = authority.store(SHOP);
    let outcome = connect(near, &id(CART), Alpn::Http, &store).await;
    assert_eq!(outcome.err(), Some(Reason::ConnectTimeout));
    let (_near, far) = sockets().await;
    assert_eq!(answer(far, &store).await, Err(Reason::TlsHandshake));
}

#[tokio::test]
async fn plain_bytes_are_no_handshake() {
    let authority = Authority::new("root");
    let (mut near, far) = sockets().await;
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(
        answer(far, &authority.store(CART)).await,
        Err(Reason::TlsHandshake)
    );
}

/// A session of a workload that has its certificate from `authority`.
async fn session(authority: &Authority, until: i64, bundle: Bundle) -> (Store, certs::Session) {
    let peer = Wanted {
        until,
        ..Wanted::of(&[CART])
    };
    let (near, far) = sockets().await;
    let client = authority.store_of(&Wanted::of(&[SHOP]), bundle.clone());
    let server = authority.store_of(&peer, bundle);
    let accepting = accept(Prefixed::new(BytesMut::new(), far), &server);
    let cart = id(CART);
    let (connected, _) = tokio::join!(connect(near, &cart, Alpn::Http, &client), accepting);
    let session = connected.unwrap().session;
    (client, session)
}

#[tokio::test]
async fn a_session_retires_before_it_ends_with_the_first_certificate() {
    let authority = Authority::new("root");
    let (store, session) = session(&authority, 100, authority.bundle()).await;
    assert_eq!(session.ends, NOW + Duration::from_secs(100));
    assert!(store.still_trusts(&session));
    tokio::time::pause();
    let almost = Duration::from_secs(79);
    assert!(timeout(almost, store.retired(&session)).await.is_err());
    assert!(
        timeout(Duration::from_secs(2), store.retired(&session))
            .await
            .is_ok()
    );
    assert!(
        timeout(Duration::from_secs(18), store.ended(&session))
            .await
            .is_err()
    );
    assert!(
        timeout(Duration::from_secs(2), store.ended(&session))
            .await
            .is_ok()
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!store.still_trusts(&session));
}

#[tokio::test]
async fn a_session_outlives_a_rotation_until_its_root_is_removed() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (store, session) = session(&old, 10_000, old.bundle()).await;
    tokio::time::pause();
    store.publish_bundle(old.bundle_with(&new));
    assert!(store.still_trusts(&session));
    store
        .publish(new.certificate(&Wanted::of(&[SHOP])), old.bundle_with(&new))
        .unwrap();
    assert!(
        timeout(Duration::from_secs(5), store.ended(&session))
            .await
            .is_err()
    );
    store.publish_bundle(new.bundle());
    assert!(!store.still_trusts(&session));
    assert!(
        timeout(Duration::from_secs(1), store.ended(&session))
            .await
            .is_ok()
    );
    assert!(
        timeout(Duration::from_secs(1), store.retired(&session))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn during_a_rotation_old_and_new_certificates_meet() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = || old.bundle_with(&new);
    let client = old.store_of(&Wanted::of(&[SHOP]), both());
    let server = new.store_of(&Wanted::of(&[CART]), both());
    assert!(meet(&client, CART, &server).await.0.is_ok());
}

#[tokio::test]
async fn what_peers_could_not_accept_is_not_published() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let store = ours.store(SHOP);
    let epoch = store.current().epoch;
    for certificate in [
        theirs.certificate(&Wanted::of(&[SHOP])),
        ours.certificate(&Wanted {
            until: -1,
            ..Wanted::of(&[SHOP])
        }),
        ours.certificate(&Wanted {
            purposes: &BOTH[..1],
            ..Wanted::of(&[SHOP])
        }),
        ours.certificate(&Wanted::of(&["spiffe://other.example/ns/shop/sa/shop"])),
    ] {
        assert!(store.publish(certificate, ours.bundle()).is_err());
    }
    assert_eq!(store.current().epoch, epoch);
}

#[test]
fn a_bundle_holds_authorities_alone() {
    let authority = Authority::new("root");
    let (leaf, _) = authority.issue(&Wanted::of(&[CART]));
    assert_eq!(Bundle::new(Vec::new()), Err(certs::Unusable::Empty));
    assert_eq!(Bundle::new(leaf), Err(certs::Unusable::NotAnAuthority));
    assert_eq!(
        Bundle::new(vec![b"x".to_vec().into()]),
        Err(certs::Unusable::Malformed)
    );
    let twice = Bundle::new(vec![authority.root.clone(), authority.root.clone()]).unwrap();
    assert_eq!(twice.roots().len(), 1);
}
