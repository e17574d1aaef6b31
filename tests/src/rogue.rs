//! A peer that is not what it should be: mesh TLS with certificates of a test.
//!
//! Signs with the mesh's own root or with one that nobody knows, so that one
//! thing at a time can be wrong: identity, root, time. Never used by anything
//! that means well, so it trusts everybody unless told otherwise.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
        StreamOwned,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use weft_proxy::unverified;

/// Between HTTP proxies.
pub const HTTP: &str = "weft1-h2";
/// Between proxies, for opaque bytes.
pub const TCP: &str = "weft1-tcp";

/// Who signs.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

/// When a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    Now,
    /// Until an hour ago.
    Past,
    /// From an hour on.
    Future,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl Authority {
    /// The mesh's own, from the state directory of its control plane.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn of_mesh(mesh: &Path) -> Self {
        let read =
            |name: &str| std::fs::read(mesh.join("state").join(name)).expect("a mesh has a root");
        let root = CertificateDer::from_pem_slice(&read("root.pem")).expect("a certificate in PEM");
        let key = String::from_utf8(read("root.key.pem")).expect("PEM is text");
        let key = KeyPair::from_pem(&key).expect("a key in PEM");
        let issuer = Issuer::from_ca_cert_der(&root, key).expect("a root can sign");
        Self { issuer, root }
    }

    /// One that nobody trusts.
    ///
    /// # Panics
    /// Never: its parameters are fixed.
    #[must_use]
    pub fn unknown() -> Self {
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "somebody else's root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("it can sign itself");
        Self {
            root: root.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A leaf for `identity`.
    ///
    /// # Panics
    /// When `identity` is no URI.
    #[must_use]
    pub fn issue(&self, identity: &str, validity: Validity) -> Credentials {
        let hour = Duration::from_secs(3600);
        #[allow(
            clippy::disallowed_methods,
            reason = "certificates are judged by the real clock of real proxies"
        )]
        let now = SystemTime::now();
        let (from, until) = match validity {
            Validity::Now => (now - hour, now + hour),
            Validity::Past => (now - 2 * hour, now - hour),
            Validity::Future => (now + hour, now + 2 * hour),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.try_into().expect("a URI"))];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (from.into(), until.into());
        let key = KeyPair::generate().expect("keys can be made");
        let leaf = params
            .signed_by(&key, &self.issuer)
            .expect("a leaf can be signed");
        Credentials {
            chain: vec![leaf.der().clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }
}

/// A SPIFFE identity of the mesh.
#[must_use]
pub fn identity(namespace: &str, account: &str) -> String {
    format!("spiffe://cluster.local/ns/{namespace}/sa/{account}")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

// ── a server ────────────────────────────────────────────────────────────────

/// Accepts mesh TLS and keeps what callers say in it.
#[derive(Debug)]
pub struct Server {
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    /// `trusted`: whose clients it accepts; everybody's where it is `None`.
    /// What was said goes through `script`, whose bytes are said back.
    ///
    /// # Panics
    /// When the credentials don't fit together.
    #[must_use]
    pub fn start(
        listener: TcpListener,
        credentials: Credentials,
        trusted: Option<&Authority>,
        script: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider knows TLS 1.3");
        let builder = match trusted {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.root.clone()).expect("a root");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().expect("there is a root"))
            }
        };
        let Credentials { chain, key } = credentials;
        let mut config = builder
            .with_single_cert(chain, key)
            .expect("a key fits its certificate");
        config.alpn_protocols = vec![HTTP.into(), TCP.into()];
        let config = Arc::new(config);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&heard);
        let script = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (config, to, script) =
                    (Arc::clone(&config), Arc::clone(&to), Arc::clone(&script));
                thread::spawn(move || serve(stream, config, &to, &*script));
            }
        });
        Self { heard }
    }

    /// Everything that callers said inside TLS.
    ///
    /// # Panics
    /// When a connection's thread has.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.heard.lock().expect("no connection panics").clone()
    }
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    heard: &Mutex<Vec<u8>>,
    script: &(dyn Fn(&[u8]) -> Vec<u8> + Send + Sync),
) {
    let connection = ServerConnection::new(config).expect("the configuration is whole");
    let mut tls = StreamOwned::new(connection, stream);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = tls.read(&mut buffer) {
        let fresh = buffer.get(..read).unwrap_or_default();
        heard
            .lock()
            .expect("no connection panics")
            .extend_from_slice(fresh);
        let answer = script(fresh);
        if tls.write_all(&answer).and_then(|()| tls.flush()).is_err() {
            return;
        }
    }
    // An alert must arrive: closing with bytes unread would reset the connection.
    let _ = tls.sock.shutdown(Shutdown::Write);
    while let Ok(1..) = tls.sock.read(&mut buffer) {}
}

// ── a client ────────────────────────────────────────────────────────────────

/// A mesh connection of our own.
pub type Client = StreamOwned<ClientConnection, TcpStream>;

/// Begins mesh TLS as `credentials`, or without a certificate. The handshake
/// happens with the first read or write.
///
/// # Panics
/// When the credentials don't fit together.
#[must_use]
pub fn client(stream: TcpStream, credentials: Option<Credentials>, alpn: &str) -> Client {
    let connection = ClientConnection::new(client_config(credentials, alpn), nobody())
        .expect("the configuration is whole");
    StreamOwned::new(connection, stream)
}

/// The same, for whoever waits for many at once.
///
/// # Errors
/// When the server refuses.
///
/// # Panics
/// When the credentials don't fit together.
pub async fn connect(
    stream: tokio::net::TcpStream,
    credentials: Option<Credentials>,
    alpn: &str,
) -> io::Result<TlsStream<tokio::net::TcpStream>> {
    let connector = TlsConnector::from(client_config(credentials, alpn));
    connector.connect(nobody(), stream).await
}

fn nobody() -> ServerName<'static> {
    ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]))
}

fn client_config(credentials: Option<Credentials>, alpn: &str) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows TLS 1.3")
        .dangerous()
        // The tests are about what the server believes.
        .with_custom_certificate_verifier(unverified::verifier(provider()));
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(Credentials { chain, key }) => builder
            .with_client_auth_cert(chain, key)
            .expect("a key fits its certificate"),
    };
    config.alpn_protocols = vec![alpn.into()];
    Arc::new(config)
}
