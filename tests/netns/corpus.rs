//! The HTTP/1 corpora through two sidecars, to an application that keeps raw bytes.
//!
//! The codec's own tests hold each case in memory; here the same bytes cross
//! sockets, lanes and mutual TLS. A hostile request ends at the caller's own
//! proxy with its fault; an odd but legal one arrives as the corpus says.

use std::sync::{Arc, Mutex};

use weft_proxy::seams::http1::{self, Asked};
use weft_tests::{
    corpus::{self, Case, Verdict},
    probe::{Ended, Raw},
    recorder::{Recorder, Say, has_head},
    world::{self, Pod, World},
};

use crate::documented;

const PORT: u16 = 8080;
/// An answer that is so late will not come.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(5);

struct Rig {
    client: Pod,
    app: Recorder,
    app_pod: Pod,
}

fn rig(answering: impl FnOnce(std::net::TcpListener) -> Recorder) -> Option<Rig> {
    if !world::possible() {
        return None;
    }
    let mesh = World::with(
        true,
        // Where nothing but HTTP is meant, nothing else is carried.
        &world::service("shop/app", &[PORT]).replace("targetPort", "appProtocol: http, targetPort"),
        &[
            ("WEFT_ACCESS_LOG_PER_SECOND", "100000"),
            // As the corpus is written for.
            ("WEFT_MAX_HEADERS", "128"),
        ],
    );
    let app_pod = mesh.idle("shop/app-0");
    let app = answering(app_pod.listen(PORT));
    let client = mesh.idle("shop/client-0");
    let rig = Rig {
        client,
        app,
        app_pod,
    };
    // Until the endpoint is known, answers are about that.
    weft_tests::wait::until("the application through both sidecars", || {
        let answer = rig
            .connect()
            .ask(b"GET /first HTTP/1.1\r\nHost: app\r\n\r\n");
        answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(())
    });
    let _ = rig.app.take();
    Some(rig)
}

impl Rig {
    fn connect(&self) -> Raw {
        let stream = self.client.connect("app.shop", PORT);
        stream.set_read_timeout(Some(SILENCE)).expect("not zero");
        Raw::new(stream)
    }
}

fn requests() -> Vec<Case> {
    let mut cases = corpus::parse(include_str!("../corpus/http1/requests-hostile.txt"));
    cases.extend(corpus::parse(include_str!(
        "../corpus/http1/requests-legal.txt"
    )));
    cases
}

/// What the client and the application saw of a case that must be refused.
fn refused(rig: &Rig, case: &Case, fault: &str) -> Result<(), String> {
    let mut raw = rig.connect();
    raw.send(&case.input);
    let answer = loop {
        match raw.answer() {
            // Of a legal request in front of the hostile one.
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => break answer,
            Err(ended) => return Err(format!("{ended:?} instead of an answer")),
        }
    };
    let due = documented::fault(fault);
    if answer.status != due.status {
        return Err(format!(
            "status {} instead of {}",
            answer.status, due.status
        ));
    }
    let told = answer.field("proxy-status").unwrap_or_default();
    if told != due.proxy_status("outbound") {
        return Err(format!("proxy-status {told:?}"));
    }
    match raw.ended() {
        Ended::Closed => {}
        other => return Err(format!("the connection is {other:?}")),
    }
    let came = rig.app.take();
    if !came.is_empty() && case.begun.starts_with(&came) {
        return Ok(());
    }
    same(&came, &case.forwarded)
}

fn accepted(rig: &Rig, case: &Case, count: usize) -> Result<(), String> {
    let mut raw = rig.connect();
    raw.send(&case.input);
    for number in 0..count {
        match raw.answer() {
            Ok(answer) if answer.status == 200 => {}
            other => return Err(format!("answer {number} is {other:?}")),
        }
    }
    same(&rig.app.take(), &case.forwarded)
}

/// A request that lacks its end when the client leaves: nothing that could be
/// taken for a whole one may arrive.
///
/// A head without end is told so; of a body that lacks bytes there is nobody to tell.
fn incomplete(rig: &Rig, case: &Case, count: usize) -> Result<usize, String> {
    let mut raw = rig.connect();
    raw.send(&case.input);
    for number in 0..count {
        match raw.answer() {
            Ok(answer) if answer.status == 200 => {}
            other => return Err(format!("answer {number} is {other:?}")),
        }
    }
    let shut = raw.stream().shutdown(std::net::Shutdown::Write);
    shut.map_err(|error| error.to_string())?;
    let told = match raw.answer() {
        Ok(answer) if answer.status == documented::fault("malformed-request").status => 1,
        Ok(answer) => return Err(format!("answered {}", answer.status)),
        Err(_) => 0,
    };
    // Connection by connection: what is left of another case must not end this one's.
    let came: Vec<_> = rig
        .app
        .take_by_connection()
        .iter()
        .flat_map(|bytes| http1::read_requests([&bytes[..]]).messages)
        .collect();
    if came.len() > count {
        return Err(format!("arrived as whole: {came:?}"));
    }
    Ok(told)
}

fn same(came: &[u8], due: &[u8]) -> Result<(), String> {
    if came == due {
        return Ok(());
    }
    let (came, due) = (came.escape_ascii(), due.escape_ascii());
    Err(format!(
        "the application got\n    {came}\n  instead of\n    {due}"
    ))
}

#[test]
fn every_request_of_the_corpus_meets_its_end_through_two_sidecars() {
    let Some(rig) = rig(Recorder::http) else {
        return;
    };
    let mut cases = requests();
    assert!(cases.len() > 200, "the corpus shrank to {}", cases.len());
    let mut wrong = Vec::new();
    let mut told = 0;
    // Of what arrives in part some may come after its case, in the next one.
    cases.sort_by_key(|case| match case.verdict {
        Verdict::Incomplete(_) => 2,
        _ if !case.begun.is_empty() => 1,
        _ => 0,
    });
    for case in &cases {
        let result = match &case.verdict {
            Verdict::Refused(fault, _) => refused(&rig, case, fault).map(|()| 1),
            Verdict::Accepted(count) => accepted(&rig, case, *count).map(|()| 0),
            Verdict::Incomplete(count) => incomplete(&rig, case, *count),
        };
        match result {
            Ok(faults) => told += faults,
            Err(why) => wrong.push(format!("{}: {why}", case.name)),
        }
        let _ = rig.app.take();
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let counted = rig.client.metrics().sum("weft_traffic_faults_total", &[]);
    assert_eq!(
        counted, told as f64,
        "the caller's proxy, and what clients were told"
    );
    assert_eq!(
        rig.app_pod.metrics().sum("weft_traffic_faults_total", &[]),
        0.0
    );
}

/// An application that answers every request with the case of the moment, and
/// then ends its connection where that is the end of the body.
struct Scripted {
    rig: Rig,
    says: Arc<Mutex<Say>>,
}

fn scripted() -> Option<Scripted> {
    let says = Arc::new(Mutex::new(Say::Wait));
    let said = Arc::clone(&says);
    let rig = rig(move |listener| {
        Recorder::start(listener, move |heard| {
            if !has_head(heard) {
                return Say::Wait;
            }
            if heard.starts_with(b"GET /first") {
                return Say::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec());
            }
            said.lock().unwrap().clone()
        })
    })?;
    Some(Scripted { rig, says })
}

impl Scripted {
    /// Sends what the case's response answers.
    fn ask(&self, case: &Case, says: Say) -> Raw {
        *self.says.lock().unwrap() = says;
        let mut raw = self.rig.connect();
        raw.send(match case.asked.as_str() {
            "GET" => b"GET /case HTTP/1.1\r\nHost: app\r\n\r\n",
            "HEAD" => b"HEAD /case HTTP/1.1\r\nHost: app\r\n\r\n",
            "UPGRADE" => b"GET /case HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.0" => b"GET /case HTTP/1.0\r\nHost: app\r\nConnection: keep-alive\r\n\r\n",
            other => panic!("{}: nobody asks {other}", case.name),
        });
        raw
    }
}

#[test]
fn every_hostile_response_of_the_corpus_ends_at_the_application_s_own_sidecar() {
    let Some(scripted) = scripted() else {
        return;
    };
    let cases = corpus::parse(include_str!("../corpus/http1/responses-hostile.txt"));
    assert!(cases.len() > 40, "the corpus shrank to {}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let Verdict::Refused(fault, _) = &case.verdict else {
            continue;
        };
        let mut raw = scripted.ask(case, Say::Last(case.input.clone()));
        let answer = match case.asked.as_str() {
            "HEAD" => raw.head(),
            _ => raw.answer(),
        };
        let due = documented::fault(fault);
        let is_right = match &answer {
            Ok(answer) if answer.status == due.status => {
                answer.field("proxy-status") == Some(&due.proxy_status("inbound"))
            }
            // The head was good and went on: only breaking off tells.
            Ok(answer) => answer.status < 400 && raw.ended() == Ended::Reset,
            Err(ended) => *ended == Ended::Reset,
        };
        if !is_right {
            wrong.push(format!("{}: {answer:?}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Messages in bytes that answer the case's request.
fn read(case: &Case, bytes: &[u8]) -> http1::Read {
    http1::read_responses(
        [bytes],
        match case.asked.as_str() {
            "HEAD" => Asked::Head,
            "UPGRADE" => Asked::Upgrade,
            "HTTP/1.0" => Asked::Http10,
            _ => Asked::Get,
        },
    )
}

/// Do the bytes tell their end, or only that of the connection?
fn is_framed(case: &Case, bytes: &[u8]) -> bool {
    let messages = read(case, bytes).messages;
    let last = messages.last().expect("a legal response is one");
    let tells = |(name, _): &http1::Field| {
        [&b"content-length"[..], b"transfer-encoding"]
            .iter()
            .any(|it| name.eq_ignore_ascii_case(it))
    };
    match last.start {
        http1::Start::Response { status: 101, .. } => false,
        http1::Start::Response {
            status: 204 | 304, ..
        } => true,
        _ => case.asked == "HEAD" || last.fields.iter().any(tells),
    }
}

/// What the client hears, to the end that the case has.
fn heard(case: &Case, count: usize, raw: &mut Raw) -> Result<Vec<u8>, String> {
    let mut heard = Vec::new();
    if !is_framed(case, &case.forwarded) {
        return match raw.everything(&mut heard) {
            Ended::Closed => Ok(heard),
            other => Err(format!("{other:?} after {}", heard.escape_ascii())),
        };
    }
    // One by one: chunks may be cut in another way than they were sent.
    while read(case, &heard).messages.len() < count {
        let byte = raw.exactly(1);
        heard.extend(byte.map_err(|ended| format!("{ended:?} after {}", heard.escape_ascii()))?);
    }
    Ok(heard)
}

fn passed_on(scripted: &Scripted, case: &Case, count: usize) -> Result<(), String> {
    let says = match is_framed(case, &case.input) {
        true => Say::Bytes(case.input.clone()),
        false => Say::Last(case.input.clone()),
    };
    let came = heard(case, count, &mut scripted.ask(case, says))?;
    let (is, due) = (read(case, &came), read(case, &case.forwarded));
    if is.end == http1::End::Clean && is.messages == due.messages {
        return Ok(());
    }
    let (is, due) = (came.escape_ascii(), case.forwarded.escape_ascii());
    Err(format!("the client got\n    {is}\n  instead of\n    {due}"))
}

#[test]
fn every_odd_but_legal_response_of_the_corpus_arrives_as_it_was_meant() {
    let Some(scripted) = scripted() else {
        return;
    };
    let cases = corpus::parse(include_str!("../corpus/http1/responses-legal.txt"));
    assert!(cases.len() > 40, "the corpus shrank to {}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let Verdict::Accepted(count) = case.verdict else {
            panic!("{}: not a legal one", case.name);
        };
        if let Err(why) = passed_on(&scripted, case, count) {
            wrong.push(format!("{}: {why}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    for pod in [&scripted.rig.client, &scripted.rig.app_pod] {
        let faults = pod.metrics().sum("weft_traffic_faults_total", &[]);
        assert_eq!(faults, 0.0, "{}", pod.name());
    }
}
