//! What a transparent proxy can't but change: each line of
//! `docs/differences.md` that is about HTTP, as a test. Those about TCP are in
//! `tcp`, that about CONNECT and h2c in `http1`.

use std::time::Duration;

use weft_tests::{
    raw::{Application, End, Step, accept, play, send},
    world,
};

use crate::pair::{Pair, Script};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const GET: &str = "GET / HTTP/1.1\r\nHost: raw.shop\r\n\r\n";

fn script(client: Vec<Step>, application: Vec<Step>) -> Script {
    Script {
        client,
        application: vec![application],
    }
}

#[test]
fn a_port_that_nobody_listens_on_answers_503_by_name() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let heard = play(
        pair.meshed.client.connect("raw.shop", pair.port()),
        &[send(GET), Step::Hear("\r\n\r\n")],
    );
    let text = heard.text();
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.contains("connection_refused"), "{text}");
}

#[test]
fn an_application_that_closes_without_an_answer_is_a_502() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let post = "POST / HTTP/1.1\r\nHost: raw.shop\r\nContent-Length: 2\r\n\r\nhi";
    let (with, without) = pair.run(&script(
        vec![send(post), Step::Hear("\r\n\r\n")],
        vec![Step::Hear("hi")],
    ));
    assert!(without.client.bytes.is_empty());
    let text = with.client.text();
    assert!(text.starts_with("HTTP/1.1 502"), "{text}");
    assert!(text.contains("upstream-reset"), "{text}");
}

#[test]
fn an_answer_that_breaks_off_ends_in_a_reset() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let half = send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let quiet = Step::Silence(Duration::from_millis(300));
    let (with, without) = pair.run(&script(
        vec![send(GET), Step::Hear("half"), Step::HearAll],
        vec![Step::Hear("\r\n\r\n"), half.clone(), quiet.clone()],
    ));
    assert_eq!(without.client.end, End::Closed);
    assert_eq!(with.client.end, End::Reset);
    assert_eq!(with.client.bytes, without.client.bytes);

    // Broken off before anything was passed on: then a 502 says so better.
    let (with, _) = pair.run(&script(
        vec![send(GET), Step::Hear("\r\n\r\n"), quiet.clone()],
        vec![Step::Hear("\r\n\r\n"), half],
    ));
    let answer = with.client.text();
    assert!(
        answer.starts_with("HTTP/1.1 502") || with.client.end == End::Reset,
        "{:?}: {answer}",
        with.client.end
    );
}

#[test]
fn the_end_of_a_connection_is_each_hops_own() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    // The application closes; the caller's connection goes on.
    let port = pair.port();
    let listener = pair.meshed.application.listen(port);
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    let once = vec![Step::Hear("\r\n\r\n"), send(closing)];
    let application = Application::start(listener, vec![once.clone(), once]);
    let heard = play(
        pair.meshed.client.connect("raw.shop", port),
        &[send(GET), Step::Hear("hi"), send(GET), Step::Hear("hi")],
    );
    assert_eq!(heard.end, End::Open, "{}", heard.text());
    assert!(
        !heard.text().to_lowercase().contains("connection:"),
        "{}",
        heard.text()
    );
    assert_eq!(application.heard().len(), 2);

    // The caller closes; the application's connection serves the next caller.
    let port = pair.port();
    let listener = pair.meshed.application.listen(port);
    let both = vec![
        Step::Hear("\r\n\r\n"),
        send(OK),
        Step::Hear("\r\n\r\n"),
        send(OK),
    ];
    let application = Application::start(listener, vec![both]);
    for _ in 0..2 {
        let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let heard = play(
            pair.meshed.client.connect("raw.shop", port),
            &[send(ask), Step::HearAll],
        );
        assert_eq!(heard.end, End::Closed);
        assert!(
            heard.text().contains("connection: close"),
            "{}",
            heard.text()
        );
    }
    let heard = application.heard();
    assert_eq!(heard.len(), 1);
    assert!(
        !heard[0].text().to_lowercase().contains("connection:"),
        "{}",
        heard[0].text()
    );
}

#[test]
fn fields_that_name_a_single_hop_end_there() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let (with, _) = pair.run(&script(
        vec![
            send("GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Mine\r\nX-Mine: 1\r\nX-Other: 2\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\r\n"),
            Step::Hear("hi"),
        ],
        vec![
            Step::Hear("\r\n\r\n"),
            send("HTTP/1.1 200 OK\r\nConnection: X-Own\r\nX-Own: 1\r\nX-Kept: 2\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nhi"),
        ],
    ));
    let [request, answer] = [with.application[0].text(), with.client.text()];
    for gone in ["X-Mine", "Keep-Alive", "Proxy-Connection"] {
        assert!(!request.contains(gone), "{gone} in {request}");
    }
    assert!(request.contains("X-Other: 2"), "{request}");
    assert!(
        !answer.contains("X-Own") && !answer.contains("Keep-Alive"),
        "{answer}"
    );
    assert!(answer.contains("X-Kept: 2"), "{answer}");
}

#[test]
fn chunks_keep_their_bytes_but_not_their_borders() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let (with, without) = pair.run(&script(
        vec![send(GET), Step::Hear("0\r\n\r\n")],
        vec![
            Step::Hear("\r\n\r\n"),
            send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n003\r\ncde\r\n0\r\n\r\n"),
        ],
    ));
    assert_eq!(with.answers()[0].body, without.answers()[0].body);
    assert!(
        !with.client.text().contains("x=y"),
        "{}",
        with.client.text()
    );
}

#[test]
fn the_application_sees_its_own_proxy_as_the_peer() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let port = pair.port();
    let listener = pair.meshed.application.listen(port);
    let client = pair.meshed.client.connect("raw.shop", port);
    let waiting = std::thread::spawn(move || {
        play(client, &[send(GET), Step::Silence(Duration::from_secs(10))])
    });
    let stream = accept(&listener).expect("the request");
    let peer = stream.peer_addr().unwrap().ip().to_canonical();
    assert_eq!(peer.to_string(), "127.0.0.6");
    let _ = play(stream, &[Step::Hear("\r\n\r\n"), send(OK)]);
    let _ = waiting.join();
}

#[test]
fn what_violates_the_standard_is_answered_by_the_mesh() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "M-SEARCH * HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let port = pair.port();
        let _listener = pair.meshed.application.listen(port);
        let heard = play(
            pair.meshed.client.connect("raw.shop", port),
            &[send(bad), Step::HearAll],
        );
        assert!(
            heard.text().starts_with("HTTP/1.1 400"),
            "{bad:?}: {}",
            heard.text()
        );
        assert!(
            heard.text().contains("malformed-request"),
            "{}",
            heard.text()
        );
    }
}

#[test]
fn each_difference_names_a_test_that_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("../docs/differences.md")).unwrap();
    let mut rows = 0;
    for row in document
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Without"))
    {
        rows += 1;
        let tests: Vec<_> = row
            .split('`')
            .skip(1)
            .step_by(2)
            .filter_map(|it| it.split_once("::"))
            .collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for (module, name) in tests {
            let file = root.join("netns").join(module).with_extension("rs");
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(
                text.contains(&format!("fn {name}()")),
                "{module}::{name} does not exist"
            );
        }
    }
    assert!(rows > 10, "the table is found");
}
