//! The whole control plane from its knobs: files in, report out.

use std::{fs, net::SocketAddr, path::Path};

use clap::Parser;
use futures_util::FutureExt;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::yield_now,
    time::{advance, pause},
};
use tokio_rustls::rustls::version::TLS13;
use tonic::Code;
use weft_proto::v1;

use super::*;
use crate::{
    ca::Authority,
    report::Report,
    serve::{
        accept::Address,
        tests::harness::{Credentials, DOMAIN, QUIET, Watcher, client, dial, eventually, hello},
    },
};

fn config(directory: &Path) -> Config {
    let shown = |name: &str| directory.join(name).display().to_string();
    let arguments = [
        "weft-control-plane",
        "--source",
        &format!("files:{}", shown("manifests")),
        "--source",
        &format!("files:{}", shown("generated")),
        "--state-dir",
        &shown("state"),
        "--listen",
        &format!("unix:{}", shown("control.sock")),
        "--status-socket",
        &shown("status.sock"),
        "--certificate-lifetime",
        "10s",
    ];
    Config::try_parse_from(arguments).unwrap()
}

async fn get(socket: &Path, path: &str) -> (StatusCode, bytes::Bytes) {
    ask(UnixStream::connect(socket).await.unwrap(), path).await
}

async fn ask<S>(stream: S, path: &str) -> (StatusCode, bytes::Bytes)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let _connection = runtime::spawn(async { drop(connection.await) });
    let request = http::Request::get(path)
        .header("host", "weft")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    (
        response.status(),
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

#[tokio::test]
async fn files_become_a_report_and_a_broken_one_names_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (manifests, generated) = (
        directory.path().join("manifests"),
        directory.path().join("generated"),
    );
    fs::create_dir(&manifests).unwrap();
    let _running = start(config(directory.path())).await.unwrap();
    let socket = directory.path().join("status.sock");
    let report =
        async || serde_json::from_slice::<Report>(&get(&socket, "/status").await.1).unwrap();
    assert!(
        !report().await.synced,
        "a source that is not there has not been read"
    );
    fs::create_dir(&generated).unwrap();
    eventually(async || report().await.synced).await;
    assert_eq!(report().await.problems, []);
    let whole = report().await;
    assert_eq!(whole.replicas[0].version, env!("CARGO_PKG_VERSION"));
    let root = &whole.authority.roots[0];
    assert!(
        root.root.len() == 64 && root.ends_seconds > 86_400,
        "{root:?}"
    );
    assert!(whole.authority.ends_seconds.is_some(), "{whole:?}");
    fs::write(
        manifests.join("broken.yaml"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\nspec: 7\n",
    )
    .unwrap();
    eventually(async || !report().await.problems.is_empty()).await;
    let problem = report().await.problems.remove(0);
    assert!(
        problem.file.ends_with("manifests/broken.yaml") && problem.document == 1,
        "{problem:?}"
    );
    assert!(
        !problem.message.is_empty() && !problem.remedy.is_empty(),
        "{problem:?}"
    );
    assert_eq!(get(&socket, "/other").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_reference_to_nothing_names_the_place_of_the_object_that_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let (manifests, generated) = (
        directory.path().join("manifests"),
        directory.path().join("generated"),
    );
    fs::create_dir(&manifests).unwrap();
    fs::create_dir(&generated).unwrap();
    let write = |text: &str| {
        // Read when it is finished: by rename, that is.
        fs::write(directory.path().join("next"), text).unwrap();
        fs::rename(directory.path().join("next"), manifests.join("shop.yaml")).unwrap();
    };
    let policy = "apiVersion: weft.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: cart, namespace: shop}\nspec: {targetRefs: [{group: '', kind: Service, name: cart}]}\n";
    let space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
    write(&format!("{space}{policy}"));
    let _running = start(config(directory.path())).await.unwrap();
    let socket = directory.path().join("status.sock");
    let places = async || {
        let report = get(&socket, "/status").await.1;
        let problems = serde_json::from_slice::<Report>(&report).unwrap().problems;
        problems
            .into_iter()
            .map(|it| {
                assert_eq!(it.object, "BackendPolicy shop/cart", "{it:?}");
                assert_eq!(it.field, "spec.targetRefs[0].name", "{it:?}");
                (it.file, it.document)
            })
            .collect::<Vec<_>>()
    };
    let place = |file: &std::path::PathBuf, document| vec![(file.display().to_string(), document)];
    let file = manifests.join("shop.yaml");
    eventually(async || places().await == place(&file, 2)).await;
    // The place follows the object, though the object is the same.
    write(policy);
    eventually(async || places().await == place(&file, 1)).await;
    fs::write(generated.join("cart.yaml"), policy).unwrap();
    let later = generated.join("cart.yaml");
    eventually(async || places().await == place(&later, 1)).await;
    write("# nothing\n");
    fs::remove_file(&later).unwrap();
    eventually(async || places().await.is_empty()).await;
}

#[tokio::test]
async fn a_socket_in_use_and_a_broken_bundle_are_told_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let _running = start(config(directory.path())).await.unwrap();
    let error = format!(
        "{:#}",
        start(config(directory.path())).await.map(drop).unwrap_err()
    );
    assert!(error.contains("control.sock (--listen)"), "{error}");
    let other = tempfile::tempdir().unwrap();
    fs::create_dir_all(other.path().join("state/roots")).unwrap();
    fs::set_permissions(
        other.path().join("state"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    fs::write(other.path().join("state/roots/a.pem"), "nonsense").unwrap();
    let error = format!(
        "{:#}",
        start(config(other.path())).await.map(drop).unwrap_err()
    );
    assert!(error.contains("a.pem"), "{error}");
}

/// The proxies of a mesh whose state is in this directory.
struct Shop {
    authority: Authority,
    control_plane: SocketAddr,
}

impl Shop {
    async fn watch(&self, pod: &str) -> Watcher {
        let identity = format!("spiffe://{DOMAIN}/ns/shop/sa/cart");
        let (issued, key) = self.authority.own(&identity).unwrap();
        let credentials = Credentials {
            chain: issued.chain,
            key: key.into(),
        };
        let config = client(self.authority.root(), Some(credentials), &[&TLS13]);
        let channel = dial(self.control_plane, config).await.unwrap();
        Watcher::begin(channel, hello(pod)).await.unwrap()
    }
}

/// Keeps a paused clock from moving by itself while sockets are waited for; not
/// for ever, so that a test that waits for nothing fails.
fn stay_awake() -> Task {
    runtime::spawn(async {
        for _ in 0..500_000 {
            yield_now().await;
        }
    })
}

/// What SIGTERM does to a replica in a cluster.
#[tokio::test]
async fn a_replica_that_ends_is_not_ready_serves_for_eight_seconds_and_then_sends_its_proxies_on() {
    let directory = tempfile::tempdir().unwrap();
    let manifests = directory.path().join("manifests");
    fs::create_dir(&manifests).unwrap();
    fs::create_dir(directory.path().join("generated")).unwrap();
    let pods = ["cart-0", "cart-1"].map(|pod| {
        format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}, namespace: shop}}\nspec: {{serviceAccountName: cart}}\n")
    });
    fs::write(manifests.join("shop.yaml"), pods.concat()).unwrap();
    // Addresses that no other test has.
    let health: SocketAddr = "127.57.15.14:15014".parse().unwrap();
    let control_plane = "127.57.15.14:15010".parse().unwrap();
    let mut config = config(directory.path());
    config.listen = Address::Tcp(control_plane);
    config.health_listen = Some(health);
    config.heartbeat = QUIET;
    let mut running = start(config).await.unwrap();
    running.elected = Some(cluster::Elected::nowhere());
    let ready = async || ask(TcpStream::connect(health).await.unwrap(), "/ready").await;
    eventually(async || ready().await.0 == StatusCode::OK).await;
    let state = directory.path().join("state");
    let shop = Shop {
        authority: Authority::open(&state, DOMAIN, QUIET, Wall::System).unwrap(),
        control_plane,
    };
    let mut first = shop.watch("cart-0").await;
    first.next().await;

    pause();
    let _awake = stay_awake();
    let leaving = runtime::spawn(running.leave());
    eventually(async || ready().await.0 == StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(ready().await.1, "leaves: others serve\n");
    for _ in 1..LEAVE.as_secs() {
        advance(Duration::from_secs(1)).await;
        assert!(first.hear().now_or_never().is_none(), "it is told too soon");
    }
    // Who was led here a moment ago is served as ever.
    let mut second = shop.watch("cart-1").await;
    second.next().await;
    first.subscribe(v1::Kind::Address, "10.0.0.1:80").await;
    first.next().await;
    assert_eq!(ready().await.0, StatusCode::SERVICE_UNAVAILABLE);
    // Timers end at a whole millisecond.
    advance(Duration::from_millis(1001)).await;
    for watcher in [&mut first, &mut second] {
        let told = watcher.hear().await.unwrap_err();
        assert_eq!(
            (told.code(), told.message()),
            (Code::Unavailable, "this replica ends: another one serves")
        );
    }
    advance(FAREWELL + Duration::from_millis(1)).await;
    eventually(async || TcpStream::connect(health).await.is_err()).await;
    drop(leaving);
}
