//! `weft certify`: asks a control plane what the proxy of a new pod asks first,
//! and says what came of it. The chart's test runs it in a pod.
//!
//! Readiness through the Service, then `Identity.Certify` with the pod's own
//! token over verified TLS; the answer has to be good by its own roots, for our
//! key, and name a workload. Its key is never written, so that nobody can use
//! the certificate.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, rustls::ClientConfig};
use tonic::transport::{Channel, Endpoint};
use weft_proto::v1::{CertifyRequest, CertifyResponse, identity_client::IdentityClient};

use super::asking;
use crate::{
    ca::{issue, signing},
    clock::Wall,
    config::{duration, trust_domain},
    identity,
    roots::{Fingerprint, root_of},
    serve::tls,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where proxies connect, HOST:PORT
    #[arg(long, default_value = "weft-control-plane.weft-system.svc:15010")]
    control_plane: String,
    /// Where /ready is served, HOST:PORT; default: that is not asked
    #[arg(long, value_name = "HOST:PORT")]
    health: Option<String>,
    /// Token of the pod's service account, of audience weft
    #[arg(
        long,
        default_value = "/var/run/secrets/weft/token",
        value_name = "PATH"
    )]
    token_file: PathBuf,
    /// Roots of the mesh in PEM
    #[arg(
        long,
        default_value = "/var/run/weft/trust-bundle/ca.pem",
        value_name = "PATH"
    )]
    trust_bundle: PathBuf,
    /// Trust domain of every identity
    #[arg(long, default_value = "cluster.local", value_parser = trust_domain)]
    trust_domain: String,
    /// For how long it is tried again
    #[arg(long, default_value = "60s", value_parser = duration)]
    patience: Duration,
}

/// Of one try.
const DEADLINE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);

/// # Errors
/// What the last try came to.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let text = asking::block_on(patiently(arguments, AGAIN))?;
    asking::print(&text)
}

/// A control plane may have been installed a moment ago.
async fn patiently(arguments: &Arguments, again: Duration) -> anyhow::Result<String> {
    let end = Instant::now() + arguments.patience;
    loop {
        let tried = timeout(DEADLINE, Box::pin(once(arguments))).await;
        let error = match tried.context("no answer in time").flatten() {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        if timeout_at(end, sleep(again)).await.is_err() {
            return Err(error);
        }
    }
}

async fn once(arguments: &Arguments) -> anyhow::Result<String> {
    let mut text = String::new();
    if let Some(health) = &arguments.health {
        let stream = connect(health).await?;
        let ready = asking::ask(stream, "/ready").await;
        ready.with_context(|| format!("{health} is not ready"))?;
        text = format!("{health} is ready\n");
    }
    let (file, bundle) = (&arguments.token_file, &arguments.trust_bundle);
    let token = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let roots = std::fs::read(bundle).with_context(|| bundle.display().to_string())?;
    let roots = signing::pem("the trust bundle", &roots)?;
    let to = &arguments.control_plane;
    let config = tls::newcomer(&roots, &arguments.trust_domain)?;
    // Boxed: TLS and its buffers are large.
    let channel = Box::pin(dial(to, config)).await?;
    let (request, key) = issue::request()?;
    let request = CertifyRequest {
        certificate_signing_request: request.into(),
        token: token.trim().to_owned(),
    };
    let answered = IdentityClient::new(channel).certify(request).await;
    let answer = answered
        .map_err(|status| anyhow::anyhow!("{to} gives no certificate: {}", status.message()))?
        .into_inner();
    let good = judge(answer, &key, &arguments.trust_domain);
    Ok(text + &good.context("the certificate is not good")?)
}

async fn connect(to: &str) -> anyhow::Result<TcpStream> {
    let connected = TcpStream::connect(to).await;
    connected.with_context(|| format!("no connection to {to}"))
}

async fn dial(to: &str, config: Arc<ClientConfig>) -> anyhow::Result<Channel> {
    let socket = connect(to).await?;
    // Whom we mean is an identity, not a name.
    let name = ServerName::from(socket.peer_addr()?.ip());
    let stream = TlsConnector::from(config).connect(name, socket).await;
    let mut stream = Some(stream.with_context(|| format!("{to} is not the control plane"))?);
    let once = tower::service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| std::io::Error::other("the connection has ended")) }
    });
    let endpoint = Endpoint::from_static("http://control-plane");
    Ok(Box::pin(endpoint.connect_with_connector(once)).await?)
}

/// What the certificate says.
///
/// # Errors
/// Why no proxy could use it.
fn judge(answer: CertifyResponse, key: &[u8], trust_domain: &str) -> anyhow::Result<String> {
    let der = |all: Vec<bytes::Bytes>| -> Vec<CertificateDer<'static>> {
        let each = all.into_iter().map(|it| CertificateDer::from(it.to_vec()));
        each.collect()
    };
    let (chain, roots) = (der(answer.chain), der(answer.roots));
    let now = Wall::System.now();
    let root = root_of(&chain, &roots, now)?;
    let Some(leaf) = chain.first() else {
        bail!("there is none");
    };
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf)?;
    ensure!(leaf.public_key().raw == key, "it is for another key");
    let uris = identity::uris(&leaf);
    let [identity] = uris.as_slice() else {
        bail!("it has not exactly one URI: {uris:?}");
    };
    let is_workload = identity::is_workload(identity, trust_domain);
    ensure!(is_workload, "{identity} is no identity of {trust_domain}");
    let root = Fingerprint::of(root);
    let until = leaf.validity().not_after;
    Ok(format!("{identity}, under root {root}, until {until}\n"))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        runtime::{self, Task},
        serve::tests::harness::{DOMAIN, Plane, QUIET, authority},
    };

    /// A shop with `plane`, as cart-0 would ask it.
    async fn asked(plane: &Plane) -> (tempfile::TempDir, Arguments) {
        let directory = tempfile::tempdir().unwrap();
        let (token_file, trust_bundle) = (
            directory.path().join("token"),
            directory.path().join("ca.pem"),
        );
        std::fs::write(&token_file, plane.token("cart-0", "cart") + "\n").unwrap();
        std::fs::write(&trust_bundle, signing::to_pem(&plane.authority.root())).unwrap();
        let arguments = Arguments {
            control_plane: plane.address.to_string(),
            health: None,
            token_file,
            trust_bundle,
            trust_domain: DOMAIN.to_owned(),
            patience: Duration::ZERO,
        };
        (directory, arguments)
    }

    /// Somebody who answers a request each with the next of `statuses`.
    async fn health(statuses: &'static [&'static str]) -> (String, Task) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = runtime::spawn(async move {
            for status in statuses {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, task)
    }

    #[tokio::test]
    async fn a_pod_of_the_mesh_is_given_its_identity() {
        let plane = Plane::with_shop(QUIET).await;
        let (_directory, mut arguments) = asked(&plane).await;
        let (address, _task) = health(&["200 OK"]).await;
        arguments.health = Some(address.clone());
        let text = patiently(&arguments, Duration::ZERO).await.unwrap();
        assert!(text.starts_with(&format!("{address} is ready\n")), "{text}");
        assert!(text.contains("spiffe://cluster.local/ns/shop/sa/cart, under root"));
    }

    #[tokio::test]
    async fn it_is_tried_again_until_its_patience_ends() {
        let plane = Plane::with_shop(QUIET).await;
        let (_directory, mut arguments) = asked(&plane).await;
        let (address, _task) = health(&["503 Service Unavailable", "200 OK"]).await;
        (arguments.health, arguments.patience) = (Some(address), QUIET);
        patiently(&arguments, Duration::ZERO).await.unwrap();
        let (address, _task) = health(&["503 Service Unavailable"]).await;
        (arguments.health, arguments.patience) = (Some(address), Duration::ZERO);
        let error = patiently(&arguments, Duration::ZERO).await.unwrap_err();
        assert!(format!("{error:#}").contains("is not ready"), "{error:#}");
    }

    #[tokio::test]
    async fn a_control_plane_under_another_root_is_asked_nothing() {
        let plane = Plane::with_shop(QUIET).await;
        let (_directory, arguments) = asked(&plane).await;
        let (_other, other) = authority();
        std::fs::write(&arguments.trust_bundle, signing::to_pem(&other.root())).unwrap();
        let error = patiently(&arguments, Duration::ZERO).await.unwrap_err();
        assert!(format!("{error:#}").contains("is not the control plane"));
        assert_eq!(plane.metrics.certificates.get(), 0);
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_control_planes_words() {
        let plane = Plane::with_shop(QUIET).await;
        let (_directory, arguments) = asked(&plane).await;
        std::fs::write(&arguments.token_file, plane.token("cart-0", "other")).unwrap();
        let error = format!(
            "{:#}",
            patiently(&arguments, Duration::ZERO).await.unwrap_err()
        );
        assert!(error.contains("gives no certificate: "), "{error}");
    }

    #[tokio::test]
    async fn a_certificate_for_another_key_is_not_good() {
        let plane = Plane::with_shop(QUIET).await;
        let (request, _) = issue::request().unwrap();
        let (_, other) = issue::request().unwrap();
        let token = plane.token("cart-0", "cart");
        let answer = plane.certify(&token, request).await.unwrap();
        let error = judge(answer, &other, DOMAIN).unwrap_err();
        assert_eq!(error.to_string(), "it is for another key");
    }
}
