//! The HTTP/1 codec: what it accepts has one meaning, to us, to hyper and to
//! the next hop.

use std::cell::Cell;

use fastrand::Rng;
use weft_proxy::seams::http1::{Asked, End, Message, Read, Start, read_requests, read_responses};
use weft_tests::corpus::parse;
use weft_tests::reference::{self, normalised};

use crate::runner::{Campaign, INPUTS, cut};

const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b":",
    b",",
    b";",
    b"0",
    b"0\r\n\r\n",
    b"5\r\n",
    b"a",
    b"\x0b",
    b"\x7f",
    b"\x80",
    b"+",
    b"-",
    b"*",
    b"/",
    b"#",
    b"chunked",
    b"close",
    b"Host: a\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: x\r\n",
    b"Upgrade: websocket\r\n",
    b"TE: trailers\r\n",
    b"Expect: 100-continue\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
];

/// Hyper costs much more than we do, and only accepted inputs are compared.
const COMPARED: usize = INPUTS / 4;

fn inputs(files: &[&str]) -> Vec<Vec<u8>> {
    files
        .iter()
        .flat_map(|text| parse(text))
        .map(|case| case.input)
        .collect()
}

const HOSTILE_REQUESTS: &str = include_str!("../corpus/http1/requests-hostile.txt");
const LEGAL_REQUESTS: &str = include_str!("../corpus/http1/requests-legal.txt");
const HOSTILE_RESPONSES: &str = include_str!("../corpus/http1/responses-hostile.txt");
const LEGAL_RESPONSES: &str = include_str!("../corpus/http1/responses-legal.txt");

fn any_asked(random: &mut Rng) -> Asked {
    match random.u8(..4) {
        0 => Asked::Head,
        1 => Asked::Upgrade,
        2 => Asked::Http10,
        _ => Asked::Get,
    }
}

/// A reading without what depends on how the bytes arrived.
fn meaning(mut read: Read) -> Read {
    read.forwarded.clear();
    read
}

/// Start line and body: what no hop changes.
fn essence(read: &Read) -> Vec<(&Start, &[u8])> {
    read.messages
        .iter()
        .map(|message| (&message.start, &message.body[..]))
        .collect()
}

/// What every next hop may rely on, checked without our parser.
fn is_clean(forwarded: &[u8], messages: &[Message]) {
    let heads = forwarded.windows(4).position(|end| end == b"\r\n\r\n");
    let Some(end) = heads.filter(|_| !messages.is_empty()) else {
        return;
    };
    let head = &forwarded[..end + 2];
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.ends_with(b"\r\n"), "a bare LF was passed on");
        assert!(
            !line[..line.len() - 2].contains(&b'\r'),
            "a bare CR was passed on"
        );
        assert!(
            !line.starts_with(b" ") && !line.starts_with(b"\t"),
            "a fold was passed on"
        );
        assert!(!line.contains(&0), "a NUL was passed on");
    }
    let count = |name: &str| {
        let lines = head.split(|byte| *byte == b'\n').skip(1);
        lines
            .filter(|line| {
                line.get(..name.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
            })
            .count()
    };
    assert!(
        count("content-length:") + count("transfer-encoding:") <= 1,
        "two framings were passed on"
    );
    if matches!(messages.first(), Some(first) if matches!(first.start, Start::Request { .. })) {
        assert!(count("host:") <= 1, "two hosts were passed on");
    }
    assert_eq!(
        count("http2-settings:")
            + count("keep-alive:")
            + count("proxy-connection:")
            + count("weft-"),
        0
    );
}

#[test]
fn requests_mean_the_same_however_they_arrive_and_once_passed_on() {
    let campaign = Campaign {
        seeds: &inputs(&[HOSTILE_REQUESTS, LEGAL_REQUESTS, LEGAL_REQUESTS]),
        pieces: PIECES,
    };
    let accepted = Cell::new(0);
    campaign.run(INPUTS, 1, |input, random| {
        let whole = read_requests([input]);
        accepted.set(accepted.get() + usize::from(whole.end == End::Clean));
        let parts = read_requests(cut(input, random));
        is_clean(&whole.forwarded, &whole.messages);
        let again = read_requests([&whole.forwarded[..]]);
        assert_eq!(again.end, End::Clean, "what we pass on, we accept");
        assert_eq!(essence(&again), essence(&whole));
        assert_eq!(
            again.forwarded, whole.forwarded,
            "a second hop changes nothing"
        );
        assert_eq!(meaning(parts), meaning(whole));
    });
    assert!(
        accepted.get() > INPUTS / 40,
        "only {} inputs were accepted",
        accepted.get()
    );
}

#[test]
fn responses_mean_the_same_however_they_arrive_and_once_passed_on() {
    let campaign = Campaign {
        seeds: &inputs(&[HOSTILE_RESPONSES, LEGAL_RESPONSES]),
        pieces: PIECES,
    };
    let accepted = Cell::new(0);
    campaign.run(INPUTS, 2, |input, random| {
        let asked = any_asked(random);
        let whole = read_responses([input], asked);
        accepted.set(accepted.get() + usize::from(whole.end == End::Clean));
        let parts = read_responses(cut(input, random), asked);
        is_clean(&whole.forwarded, &whole.messages);
        if whole.end == End::Clean {
            let again = read_responses([&whole.forwarded[..]], asked);
            assert_eq!(again.end, End::Clean, "what we pass on, we accept");
            assert_eq!(essence(&again), essence(&whole));
        }
        assert_eq!(meaning(parts), meaning(whole));
    });
    assert!(
        accepted.get() > INPUTS / 20,
        "only {} inputs were accepted",
        accepted.get()
    );
}

/// What is read up to the first message after which hyper stops reading.
fn until_closed(messages: &[Message]) -> Vec<Message> {
    let mut kept = Vec::new();
    for message in messages {
        kept.push(normalised(message));
        let says = |option: &[u8]| {
            let named = message
                .fields
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"));
            named
                .flat_map(|(_, value)| value.split(|byte| *byte == b','))
                .any(|one| one.trim_ascii().eq_ignore_ascii_case(option))
        };
        if says(b"close") || (message.version == "HTTP/1.0" && !says(b"keep-alive")) {
            break;
        }
    }
    kept
}

fn fits_hyper(message: &Message) -> bool {
    match &message.start {
        Start::Request { target, .. } => reference::uri(target).is_some(),
        // It hides a reason phrase with other bytes.
        Start::Response { reason, .. } => reason.is_ascii(),
    }
}

#[test]
fn what_we_accept_hyper_reads_the_same_way() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let seeds = inputs(&[LEGAL_REQUESTS]);
    let campaign = Campaign {
        seeds: &seeds,
        pieces: PIECES,
    };
    let accepted = Cell::new(0);
    campaign.run(COMPARED, 3, |input, _| {
        let ours = read_requests([input]);
        if ours.end != End::Clean
            || ours.messages.is_empty()
            || !ours.messages.iter().all(fits_hyper)
        {
            return;
        }
        accepted.set(accepted.get() + 1);
        let theirs = runtime.block_on(reference::requests(input));
        let theirs_read: Vec<_> = theirs.messages.iter().map(normalised).collect();
        assert_eq!(
            theirs_read,
            until_closed(&ours.messages),
            "{:?}",
            theirs.error
        );
    });
    assert!(
        accepted.get() > COMPARED / 20,
        "only {} inputs were accepted",
        accepted.get()
    );
}

#[test]
fn responses_that_we_accept_hyper_reads_the_same_way() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let seeds = inputs(&[LEGAL_RESPONSES]);
    let campaign = Campaign {
        seeds: &seeds,
        pieces: PIECES,
    };
    let accepted = Cell::new(0);
    campaign.run(COMPARED, 4, |input, random| {
        let asked = any_asked(random);
        let ours = read_responses([input], asked);
        let (End::Clean, Some(last)) = (&ours.end, ours.messages.last()) else {
            return;
        };
        if !fits_hyper(last) {
            return;
        }
        accepted.set(accepted.get() + 1);
        let theirs = runtime.block_on(reference::responses(input, asked));
        let theirs_read: Vec<_> = theirs.messages.iter().map(normalised).collect();
        assert_eq!(theirs_read, [normalised(last)], "{:?}", theirs.error);
    });
    assert!(
        accepted.get() > COMPARED / 20,
        "only {} inputs were accepted",
        accepted.get()
    );
}
