//! HTTP/2 through two sidecars, each end spoken by hand.

use std::{future::Future, net::TcpStream, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::{runtime::Runtime, sync::Notify, time::timeout};
use weft_tests::{
    raw::Server,
    wait::PATIENCE,
    world::{self, Pod, World},
};

const PORT: u16 = 8080;

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub(crate) fn into_tokio(stream: TcpStream) -> tokio::net::TcpStream {
    stream.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(stream).unwrap()
}

type Served = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves each stream of each connection at the same time as the others.
fn serve<F: Future<Output = ()> + Send + 'static>(
    pod: &Pod,
    answer: impl Fn(Served) -> F + Send + Sync + Clone + 'static,
) -> Server {
    Server::start(pod.listen(PORT), move |stream| {
        let answer = answer.clone();
        runtime().block_on(async move {
            let Ok(mut connection) = h2::server::handshake(into_tokio(stream)).await else {
                return;
            };
            let mut all = tokio::task::JoinSet::new();
            while let Some(Ok(served)) = connection.accept().await {
                all.spawn(answer(served));
            }
        });
    })
}

/// A client in the pod; the connection lives as long as `work`.
fn call<T>(client: &Pod, work: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
    let stream = client.connect("web.shop", PORT);
    runtime().block_on(async {
        let mut options = h2::client::Builder::new();
        // One unread stream must not hold up the others by the client's own doing.
        options.initial_connection_window_size(16 * 1024 * 1024);
        let handshake = options.handshake(into_tokio(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::select! {
            done = timeout(PATIENCE, work(sender)) => done.expect("an answer in time"),
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    })
}

fn pods() -> (World, Pod, Pod) {
    let world = World::new(&world::service("shop/web", &[PORT]));
    let web = world.idle("shop/web-0");
    let client = world.idle("shop/client-0");
    (world, web, client)
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://web.shop:{PORT}{path}"))
        .body(())
        .unwrap()
}

async fn read(mut body: RecvStream) -> (usize, Option<HeaderMap>) {
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        length += data.len();
        let _ = body.flow_control().release_capacity(data.len());
    }
    (length, body.trailers().await.unwrap())
}

/// Waits for the window as a well-behaved server does.
async fn write(stream: &mut h2::SendStream<Bytes>, mut size: usize) {
    while size > 0 {
        stream.reserve_capacity(size.min(64 * 1024));
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return;
        };
        let piece = room.min(size);
        if stream.send_data(vec![b'x'; piece].into(), false).is_err() {
            return;
        }
        size -= piece;
    }
}

#[test]
fn interim_answers_trailers_and_bodies_pass_both_ways() {
    if !world::possible() {
        return;
    }
    let (_world, web, client) = pods();
    let _server = serve(&web, |(request, mut respond)| async move {
        let te = request.headers().get("te").cloned();
        let (length, trailers) = read(request.into_body()).await;
        let mut hints = Response::builder().status(103).body(()).unwrap();
        hints.headers_mut().insert("link", "</a>".parse().unwrap());
        respond.send_informational(hints).unwrap();
        let mut answer = Response::builder().status(299);
        answer = answer
            .header("x-length", length)
            .header("set-cookie", "a")
            .header("set-cookie", "b");
        if let Some(te) = te {
            answer = answer.header("x-te", te);
        }
        let mut body = respond
            .send_response(answer.body(()).unwrap(), false)
            .unwrap();
        write(&mut body, 100_000).await;
        body.send_trailers(trailers.unwrap()).unwrap();
    });
    call(&client, async |sender| {
        let mut sender = sender.ready().await.unwrap();
        let request = Request::post(format!("http://web.shop:{PORT}/x"));
        let request = request.header("te", "trailers").body(()).unwrap();
        let (mut response, mut body) = sender.send_request(request, false).unwrap();
        write(&mut body, 200_000).await;
        let mut sum = HeaderMap::new();
        sum.insert("x-sum", "1".parse().unwrap());
        body.send_trailers(sum.clone()).unwrap();
        let hints = std::future::poll_fn(|cx| response.poll_informational(cx)).await;
        let hints = hints.expect("an interim answer").unwrap();
        assert_eq!(
            (hints.status().as_u16(), &hints.headers()["link"]),
            (103, &"</a>".parse().unwrap())
        );
        let response = response.await.unwrap();
        assert_eq!(response.status(), 299);
        let head = response.headers();
        assert_eq!(head["x-length"], "200000");
        assert_eq!(head["x-te"], "trailers");
        assert_eq!(head.get_all("set-cookie").iter().count(), 2);
        for added in ["date", "server", "via"] {
            assert!(!head.contains_key(added), "{head:?}");
        }
        assert_eq!(read(response.into_body()).await, (100_000, Some(sum)));
    });
}

#[test]
fn a_stream_that_nobody_reads_does_not_stall_99_others() {
    if !world::possible() {
        return;
    }
    let (_world, web, client) = pods();
    let _server = serve(&web, |(request, mut respond)| async move {
        let size: usize = request
            .uri()
            .path()
            .trim_start_matches('/')
            .parse()
            .unwrap();
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        write(&mut body, size).await;
        let _ = body.send_data(Bytes::new(), true);
    });
    call(&client, async |sender| {
        let mut sender = sender.ready().await.unwrap();
        let (slow, _) = sender.send_request(get("/30000000"), true).unwrap();
        let slow = slow.await.unwrap().into_body();
        let mut others = tokio::task::JoinSet::new();
        for _ in 0..99 {
            sender = sender.ready().await.unwrap();
            let (response, _) = sender.send_request(get("/200000"), true).unwrap();
            others.spawn(async move { read(response.await.unwrap().into_body()).await.0 });
        }
        while let Some(length) = others.join_next().await {
            assert_eq!(length.unwrap(), 200_000);
        }
        assert_eq!(read(slow).await.0, 30_000_000);
    });
}

#[test]
fn a_cancelled_stream_is_cancelled_at_the_application_and_the_others_go_on() {
    if !world::possible() {
        return;
    }
    let (_world, web, client) = pods();
    let cancelled = Arc::new(Notify::new());
    let seen = Arc::clone(&cancelled);
    let _server = serve(&web, move |(request, mut respond)| {
        let seen = Arc::clone(&seen);
        async move {
            let is_held = request.uri().path() == "/hold";
            let mut body = respond.send_response(Response::new(()), !is_held).unwrap();
            if is_held {
                let reset = std::future::poll_fn(|cx| body.poll_reset(cx)).await;
                assert_eq!(reset.unwrap(), h2::Reason::CANCEL);
                seen.notify_one();
            }
        }
    });
    call(&client, async |sender| {
        let mut sender = sender.ready().await.unwrap();
        let (held, mut stream) = sender.send_request(get("/hold"), true).unwrap();
        let held = held.await.unwrap();
        stream.send_reset(h2::Reason::CANCEL);
        drop(held);
        timeout(Duration::from_secs(10), cancelled.notified())
            .await
            .expect("the application hears of it");
        let (again, _) = sender
            .ready()
            .await
            .unwrap()
            .send_request(get("/"), true)
            .unwrap();
        assert_eq!(again.await.unwrap().status(), 200);
    });
}
