//! A session by itself, under a clock that stands until everybody waits.

use std::collections::HashMap;

use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::Codec;
use weft_proto::v1;

use super::*;
use crate::{
    index::Index,
    model::Name,
    runtime,
    serve::{
        accept::Closer,
        discovery::WatchCodec,
        hub::State,
        stream::Caller,
        tests::harness::{DOMAIN, authority, pass, shop, signed, tls_of},
    },
};

const INTERVAL: Duration = Duration::from_secs(5);

struct Stage {
    requests: mpsc::Sender<Result<Frame<Bytes>, Status>>,
    responses: mpsc::Receiver<Result<Response, Status>>,
    closer: Closer,
    hub: Hub,
    metrics: Metrics,
    started: Instant,
    going: watch::Sender<bool>,
    _tls: watch::Sender<Arc<Tls>>,
    _tasks: [runtime::Task; 2],
}

/// With a certificate of this many seconds.
async fn stage(life: u64) -> Stage {
    let (_state, authority) = authority();
    let roots: Arc<[_]> = [authority.root()].into();
    let (tls, tls_out) = watch::channel(tls_of(&authority, &roots));
    let metrics = Metrics::new();
    let (hub, run_hub) = Hub::new(State::new(Index::new(&[]), DOMAIN, roots, metrics.clone()));
    let hub_task = runtime::spawn(run_hub);
    let wake = Arc::new(Notify::new());
    let caller = Caller {
        pod: Name::new("shop", "cart-0"),
        uid: String::new(),
        service_account: "cart".into(),
        identity: String::new(),
        version: String::new(),
        features: Vec::new(),
        signed: signed(),
        expires: 0,
    };
    let joined = wake.clone();
    let join = move |state: &mut State| {
        state.apply(shop().into_iter().map(crate::model::Event::Apply).collect());
        state.synced();
        state.join(caller, &joined, HashMap::new())
    };
    let id = hub.ask(join).await.unwrap();
    let clock = Wall::fixed(Duration::from_secs(1_800_000_000));
    let verified = Verified {
        identity: String::new(),
        chain: Vec::new(),
        expires: 1_800_000_000 + life,
        signed: signed(),
    };
    let peer = Peer {
        verified: None,
        closer: Closer::default(),
        pass: pass(None),
    };
    let closer = peer.closer.clone();
    let (going, going_out) = watch::channel(false);
    let context = Context {
        hub: hub.clone(),
        heartbeat: INTERVAL,
        clock,
        tls: tls_out,
        going: going_out,
        metrics: metrics.clone(),
    };
    let (requests, incoming) = mpsc::channel(64);
    let body = StreamBody::new(ReceiverStream::new(incoming));
    let decoder = WatchCodec(context.metrics.clone()).decoder();
    let streaming = Streaming::new_request(decoder, tonic::body::Body::new(body), None, None);
    let (out, responses) = mpsc::channel(1);
    let session = Session::new(context, id, wake, peer, Arc::new(verified));
    let session = runtime::spawn(session.run(streaming, out));
    Stage {
        requests,
        responses,
        closer,
        hub,
        metrics,
        started: Instant::now(),
        _tls: tls,
        going,
        _tasks: [hub_task, session],
    }
}

impl Stage {
    async fn acknowledge(&self, nonce: u64) {
        self.say(nonce, &[]).await;
    }

    /// An acknowledgement, and `more` that a newer proxy says beside it.
    async fn say(&self, nonce: u64, more: &[u8]) {
        let message = WatchRequest {
            message: Some(Message::Acknowledge(nonce)),
        };
        let message = [message.encode_to_vec(), more.to_vec()].concat();
        let mut framed = vec![0];
        framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&message);
        self.requests
            .send(Ok(Frame::data(framed.into())))
            .await
            .unwrap();
    }
}

fn is_heartbeat(response: &Response) -> bool {
    let bytes: Vec<u8> = response.parts.concat();
    v1::WatchResponse::decode(bytes.as_slice())
        .unwrap()
        .heartbeat
        .is_some()
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_proxy_says_beyond_our_knowledge_is_counted_and_does_no_harm() {
    let mut stage = stage(86_400).await;
    let response = stage.responses.recv().await.unwrap().unwrap();
    // Field 900 with a number, 901 with a text.
    let newer = [0xa0, 0x38, 0x2a, 0xaa, 0x38, 3, b'n', b'e', b'w'];
    stage.say(response.nonce, &newer).await;
    let next = stage.responses.recv().await.unwrap().unwrap();
    assert_eq!(stage.metrics.unknown_fields.get(), 2);
    stage.acknowledge(next.nonce).await;
    let last = stage.responses.recv().await.unwrap();
    assert!(last.is_ok(), "the stream goes on");
    assert_eq!(stage.metrics.unknown_fields.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_at_their_interval_for_as_long_as_they_are_answered() {
    let mut stage = stage(86_400).await;
    for beat in 0..20 {
        let response = stage.responses.recv().await.unwrap().unwrap();
        assert!(is_heartbeat(&response));
        assert_eq!(stage.started.elapsed().as_secs(), beat * INTERVAL.as_secs());
        stage.acknowledge(response.nonce).await;
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_within_two_heartbeats_of_the_last_word() {
    let mut stage = stage(86_400).await;
    let first = stage.responses.recv().await.unwrap().unwrap();
    stage.acknowledge(first.nonce).await;
    // It reads, but never answers again.
    let end = loop {
        if let Err(status) = stage.responses.recv().await.unwrap() {
            break status;
        }
    };
    assert_eq!(end.code(), tonic::Code::DeadlineExceeded);
    assert!(
        stage.started.elapsed() <= 2 * INTERVAL + Duration::from_millis(10),
        "{:?}",
        stage.started.elapsed()
    );
    assert!(stage.closer.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_stuck_is_noticed_as_soon() {
    let stage = stage(86_400).await;
    stage.acknowledge(0).await;
    while !stage.closer.is_closed() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        stage.started.elapsed() <= 2 * INTERVAL + Duration::from_millis(200),
        "{:?}",
        stage.started.elapsed()
    );
    let proxies = async || {
        stage
            .hub
            .ask(|state| state.report(0))
            .await
            .unwrap()
            .proxies
            .len()
    };
    while proxies().await > 0 {}
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_certificate() {
    let mut stage = stage(12).await;
    let end = loop {
        match stage.responses.recv().await.unwrap() {
            Ok(response) => stage.acknowledge(response.nonce).await,
            Err(status) => break status,
        }
    };
    assert_eq!(
        (end.code(), end.message()),
        (tonic::Code::Unauthenticated, "the certificate has expired")
    );
    assert_eq!(stage.started.elapsed().as_secs(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_replica() {
    let mut stage = stage(86_400).await;
    let first = stage.responses.recv().await.unwrap().unwrap();
    stage.acknowledge(first.nonce).await;
    stage.going.send_replace(true);
    let end = loop {
        if let Err(status) = stage.responses.recv().await.unwrap() {
            break status;
        }
    };
    assert_eq!(end.code(), tonic::Code::Unavailable);
    assert!(stage.started.elapsed() < INTERVAL);
}
