//! WebSockets over HTTP/2 (RFC 8441) through two sidecars, each end spoken by
//! hand, and the same without a mesh.

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{Request, Response};
use tokio::{sync::mpsc, time::timeout};
use weft_tests::{
    http2::connect,
    raw::Server,
    wait::PATIENCE,
    world::{self, Pod, World},
};

use crate::http2::{into_tokio, runtime};

/// The application announces WebSockets on the first alone.
const PORT: u16 = 8080;
const PLAIN: u16 = 8081;

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves each stream by its path, and tells what became of it.
fn application(pod: &Pod, port: u16, tell: &mpsc::UnboundedSender<String>) -> Server {
    let tell = tell.clone();
    Server::start(pod.listen(port), move |stream| {
        let tell = tell.clone();
        runtime().block_on(async move {
            let mut builder = h2::server::Builder::new();
            if port == PORT {
                builder.enable_connect_protocol();
            }
            let Ok(mut connection) = builder.handshake(into_tokio(stream)).await else {
                return;
            };
            let mut all = tokio::task::JoinSet::new();
            while let Some(Ok(asked)) = connection.accept().await {
                all.spawn(serve(asked, tell.clone()));
            }
        });
    })
}

async fn serve((request, mut respond): Asked, tell: mpsc::UnboundedSender<String>) {
    let told = |text: String| tell.send(text).unwrap_or_default();
    let path = request.uri().path().to_owned();
    told(format!("{} {path}", request.method()));
    let mut to = respond.send_response(Response::new(()), false).unwrap();
    let mut from = request.into_body();
    match path.as_str() {
        "/reset" => {
            let _ = from.data().await;
            to.send_reset(Reason::ENHANCE_YOUR_CALM);
            return;
        }
        "/first" => say(&mut to, "", true),
        _ => {}
    }
    loop {
        match from.data().await {
            Some(Ok(data)) => {
                let _ = from.flow_control().release_capacity(data.len());
                if path == "/first" && !data.is_empty() {
                    told(String::from_utf8_lossy(&data).into_owned());
                } else if path != "/first" {
                    to.send_data(data, false).unwrap();
                }
            }
            Some(Err(error)) => return told(format!("{:?}", error.reason())),
            None => break,
        }
    }
    told("the end".to_owned());
    if path != "/first" {
        say(&mut to, "bye", true);
    }
}

fn say(to: &mut SendStream<Bytes>, text: &'static str, last: bool) {
    to.send_data(Bytes::from_static(text.as_bytes()), last)
        .unwrap();
}

/// A client in the pod; the connection lives as long as `work`.
fn call<T>(client: &Pod, port: u16, work: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
    let stream = client.connect("chat.shop", port);
    runtime().block_on(async {
        let handshake = h2::client::handshake(into_tokio(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::select! {
            done = timeout(PATIENCE, work(sender)) => done.expect("an answer in time"),
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    })
}

/// Status, `proxy-status`, and both ends of what was opened.
async fn open(
    sender: &mut SendRequest<Bytes>,
    request: Request<()>,
) -> (u16, String, SendStream<Bytes>, RecvStream) {
    let (response, to) = sender.send_request(request, false).unwrap();
    let (head, from) = response.await.unwrap().into_parts();
    let told = head.headers.get("proxy-status");
    let told = told.map_or("", |told| told.to_str().unwrap()).to_owned();
    (head.status.as_u16(), told, to, from)
}

fn websocket(path: &str) -> Request<()> {
    connect(&format!("http://chat.shop{path}"), Some("websocket"))
}

/// All that comes, and how it ended.
async fn all(from: &mut RecvStream) -> (String, Option<Reason>) {
    let mut heard = Vec::new();
    let ended = loop {
        match from.data().await {
            Some(Ok(data)) => {
                let _ = from.flow_control().release_capacity(data.len());
                heard.extend_from_slice(&data);
            }
            Some(Err(error)) => break error.reason(),
            None => break None,
        }
    };
    (String::from_utf8(heard).unwrap(), ended)
}

async fn next(told: &mut mpsc::UnboundedReceiver<String>) -> String {
    let word = timeout(PATIENCE, told.recv()).await;
    word.ok().flatten().expect("the application's word")
}

fn said(told: &mut mpsc::UnboundedReceiver<String>) -> String {
    runtime().block_on(next(told))
}

/// What a client sees of WebSockets that are carried, and the application of it.
fn story(client: &Pod, mut told: mpsc::UnboundedReceiver<String>) -> Vec<String> {
    let mut seen = Vec::new();
    call(client, PORT, async |mut sender| {
        let (status, _, mut to, mut from) = open(&mut sender, websocket("/echo")).await;
        seen.push(format!(
            "{status} {}",
            sender.is_extended_connect_protocol_enabled()
        ));
        for _ in 0..3 {
            say(&mut to, "hello", false);
            let data = from.data().await.unwrap().unwrap();
            let _ = from.flow_control().release_capacity(data.len());
            seen.push(String::from_utf8(data.into()).unwrap());
        }
        // Half-closed by the caller.
        say(&mut to, "", true);
        seen.push(format!("{:?}", all(&mut from).await));
        seen.extend([next(&mut told).await, next(&mut told).await]);

        // Half-closed by the application.
        let (_, _, mut to, mut from) = open(&mut sender, websocket("/first")).await;
        seen.push(format!("{:?}", all(&mut from).await));
        say(&mut to, "late", true);
        for _ in 0..3 {
            seen.push(next(&mut told).await);
        }

        let (_, _, mut to, mut from) = open(&mut sender, websocket("/reset")).await;
        say(&mut to, "x", false);
        seen.push(format!("{:?}", all(&mut from).await));
        seen.push(next(&mut told).await);

        let (_, _, mut to, _from) = open(&mut sender, websocket("/left")).await;
        to.send_reset(Reason::CANCEL);
        // The frame leaves with the connection's next turn.
        let (_, _, mut to, mut from) = open(&mut sender, websocket("/after")).await;
        say(&mut to, "", true);
        seen.push(format!("{:?}", all(&mut from).await));
    });
    let mut rest: Vec<String> = (0..4).map(|_| said(&mut told)).collect();
    rest.sort_unstable();
    seen.extend(rest);
    seen
}

const POLICY: &str = "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: chat, namespace: shop}\nspec:\n  selector: {matchLabels: {app: chat}}\n  ports: [8080]\n  rules:\n  - {action: Allow}\n  - {action: Deny, to: {methods: [CONNECT], pathPrefixes: [/secret]}}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: chat, namespace: shop}\nspec:\n  parentRefs: [{group: '', kind: Service, name: chat, port: 8080}]\n  rules:\n  - matches: [{method: CONNECT, path: {type: PathPrefix, value: /old}}]\n    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]\n    backendRefs: [{name: chat, port: 8080}]\n  - backendRefs: [{name: chat, port: 8080}]\n---\n";

#[test]
fn websockets_over_http2_are_carried_as_without_a_mesh() {
    if !world::possible() {
        return;
    }
    let manifests = world::service("shop/chat", &[PORT])
        .replace("port: ", "appProtocol: kubernetes.io/h2c, port: ");
    let [without, with] = [false, true].map(|meshed| {
        let world = if meshed {
            World::new(&manifests)
        } else {
            World::without_mesh(&manifests)
        };
        let chat = world.idle("shop/chat-0");
        let (tell, told) = mpsc::unbounded_channel();
        let _server = application(&chat, PORT, &tell);
        let client = world.idle("shop/client-0");
        let seen = story(&client, told);
        if meshed {
            for pod in [&client, &chat] {
                let line = pod.logs("the WebSocket", |line| {
                    line["path"] == "/echo" && line["method"] == "CONNECT"
                });
                assert_eq!(line["status"], 200, "{line}");
                assert_eq!(line["outcome"], "carried", "{line}");
                assert_eq!(line["received_bytes"], 15, "{line}");
                assert_eq!(line["sent_bytes"], 18, "{line}");
            }
        }
        seen
    });
    assert_eq!(with, without);
    let due = [
        "200 true",
        "hello",
        "hello",
        "hello",
        "(\"bye\", None)",
        "CONNECT /echo",
        "the end",
        "(\"\", None)",
        "CONNECT /first",
        "late",
        "the end",
        "(\"\", Some(ENHANCE_YOUR_CALM))",
        "CONNECT /reset",
        "(\"bye\", None)",
        "CONNECT /after",
        "CONNECT /left",
        "Some(CANCEL)",
        "the end",
    ];
    assert_eq!(with, due);
}

#[test]
fn websockets_over_http2_are_routed_judged_and_refused_by_name() {
    if !world::possible() {
        return;
    }
    let manifests = world::service("shop/chat", &[PORT, PLAIN]) + POLICY;
    let world = World::new(&manifests);
    let chat = world.idle("shop/chat-0");
    let (tell, mut told) = mpsc::unbounded_channel();
    let _servers = [PORT, PLAIN].map(|port| application(&chat, port, &tell));
    let client = world.idle("shop/client-0");
    let ask = |port: u16, request: Request<()>| {
        call(&client, port, async |mut sender| {
            let (status, told, _to, _from) = open(&mut sender, request).await;
            (status, told)
        })
    };
    assert_eq!(ask(PORT, websocket("/old/room")).0, 200);
    assert_eq!(said(&mut told), "CONNECT /new/room");
    // Its client has left it since.
    let _ = said(&mut told);
    for (port, request, status, side, reason) in [
        (PORT, websocket("/secret"), 403, "inbound", "access-denied"),
        (
            PLAIN,
            websocket("/"),
            501,
            "inbound",
            "websocket-unsupported",
        ),
        (
            PORT,
            connect("chat.shop:80", None),
            501,
            "outbound",
            "connect-method",
        ),
        (
            PORT,
            connect("http://chat.shop/", Some("weft1-h1")),
            501,
            "outbound",
            "connect-method",
        ),
        (
            PORT,
            connect("http://chat.shop/", Some("connect-ip")),
            501,
            "outbound",
            "connect-method",
        ),
    ] {
        let (answered, told) = ask(port, request);
        assert_eq!(answered, status, "{told}");
        assert!(told.starts_with(&format!("weft-{side};")), "{told}");
        assert!(told.ends_with(&format!("details=\"{reason}\"")), "{told}");
    }
    assert_eq!(told.try_recv(), Err(mpsc::error::TryRecvError::Empty));
}
