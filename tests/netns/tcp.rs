//! Bytes that are no HTTP: who speaks first, how an end is passed on.

use std::{
    io::{Read, Write},
    time::Duration,
};

use tokio::time::Instant;
use weft_tests::{
    raw::{Application, End, Server, Step, accept, play, send},
    wait,
    world::{self, Pod, World},
};

use crate::pair::{Pair, Script};

fn both(script: &Script) {
    let pair = Pair::new();
    let (with, without) = pair.run(script);
    assert_ne!(
        without.client.end,
        End::TimedOut,
        "the script is wrong: {without:?}"
    );
    assert_eq!(with, without, "left with the mesh, right without");
}

#[test]
fn a_half_closed_connection_still_carries_the_answer() {
    if world::possible() {
        both(&Script {
            client: vec![send("\u{1}question"), Step::HalfClose, Step::HearAll],
            application: vec![vec![Step::HearAll, send("the answer")]],
        });
    }
}

#[test]
fn a_server_that_half_closes_still_hears_the_client() {
    if world::possible() {
        both(&Script {
            client: vec![Step::HearAll, send("afterwards")],
            application: vec![vec![send("all I say"), Step::HalfClose, Step::HearAll]],
        });
    }
}

#[test]
fn a_reset_arrives_as_a_reset_on_the_other_side() {
    if !world::possible() {
        return;
    }
    both(&Script {
        client: vec![send("\u{1}go"), Step::HearAll],
        application: vec![vec![Step::Hear("go"), Step::Reset]],
    });
    both(&Script {
        client: vec![send("\u{1}go"), Step::Hear("gone"), Step::Reset],
        application: vec![vec![Step::Hear("go"), send("gone"), Step::HearAll]],
    });
}

#[test]
fn protocols_whose_server_greets_take_turns_as_without_a_mesh() {
    if !world::possible() {
        return;
    }
    // SMTP, then NATS.
    both(&Script {
        client: vec![
            Step::Hear("220 mail ready\r\n"),
            send("EHLO me\r\n"),
            Step::Hear("250 OK\r\n"),
            send("QUIT\r\n"),
            Step::HearAll,
        ],
        application: vec![vec![
            send("220 mail ready\r\n"),
            Step::Hear("EHLO me\r\n"),
            send("250-mail\r\n250 OK\r\n"),
            Step::Hear("QUIT\r\n"),
            send("221 bye\r\n"),
        ]],
    });
}

#[test]
fn nats_delivers_what_was_published() {
    if !world::possible() {
        return;
    }
    for meshed in [false, true] {
        let world = World::with(meshed, &world::service("shop/nats", &[4222]), &[]);
        let _nats = world.pod("shop/nats-0").port(4222).run([
            "nats-server",
            "--addr",
            "0.0.0.0",
            "--port",
            "4222",
        ]);
        let client = world.idle("shop/client-0");
        let heard = play(
            client.connect("nats.shop", 4222),
            &[
                Step::Hear("INFO {"),
                send(
                    "CONNECT {\"verbose\":false}\r\nSUB news 1\r\nPUB news 5\r\nextra\r\nPING\r\n",
                ),
                Step::Hear("MSG news 1 5\r\nextra\r\n"),
                Step::Hear("PONG\r\n"),
            ],
        );
        assert_eq!(heard.end, End::Open, "{}", heard.text());
    }
}

#[test]
fn a_greeting_comes_at_most_20_ms_later_than_without_a_mesh() {
    if !world::possible() {
        return;
    }
    const TIMES: usize = 21;
    let pair = Pair::new();
    let port = pair.port();
    let sides = [&pair.meshed, &pair.plain];
    let _servers = sides.map(|side| {
        Server::start(side.application.listen(port), |mut stream| {
            let _ = stream.write_all(b"220 ready\r\n");
            let _ = stream.read(&mut [0; 16]);
        })
    });
    let time = |side: &crate::pair::Side| {
        let began = Instant::now();
        let mut stream = side.client.connect("raw.shop", port);
        stream.read_exact(&mut [0; 11]).unwrap();
        began.elapsed()
    };
    // The first finds out what the address means.
    let _ = sides.map(time);
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..TIMES {
        for (side, times) in sides.iter().zip(&mut all) {
            times.push(time(side));
        }
    }
    let [with, without] = all.map(|mut times| {
        times.sort();
        times[TIMES / 2]
    });
    let later = with.saturating_sub(without);
    assert!(
        later <= Duration::from_millis(20),
        "{with:?} with the mesh, {without:?} without"
    );
}

fn idles_then_speaks_http(idle: Duration) {
    let pair = Pair::new();
    let port = pair.port();
    let script = Script {
        client: vec![
            Step::Silence(idle),
            send("GET /late HTTP/1.1\r\nHost: raw.shop\r\n\r\n"),
            Step::Hear("hi"),
        ],
        application: vec![vec![
            Step::HearWithin(idle + Duration::from_secs(10), "\r\n\r\n"),
            send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        ]],
    };
    let ran = pair.meshed.run(port, &script);
    assert_eq!(
        ran.client.text(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    );
    for pod in [&pair.meshed.client, &pair.meshed.application] {
        assert_eq!(
            pod.logs("the request", |line| line["path"] == "/late")["kind"],
            "request"
        );
    }
}

#[test]
fn a_client_that_idles_first_is_still_understood_when_it_speaks_http() {
    if world::possible() {
        idles_then_speaks_http(Duration::from_secs(3));
    }
}

#[test]
#[ignore = "takes a minute: make test FULL=1"]
fn a_client_that_idles_for_50_s_is_still_understood_when_it_speaks_http() {
    if world::possible() {
        idles_then_speaks_http(Duration::from_secs(50));
    }
}

#[test]
fn large_transfers_arrive_whole_in_both_directions() {
    if !world::possible() {
        return;
    }
    const SIZE: usize = 32 * 1024 * 1024;
    let pair = Pair::new();
    let port = pair.port();
    for side in [&pair.meshed, &pair.plain] {
        let application = Application::start(
            side.application.listen(port),
            vec![vec![Step::HearAll, send(vec![2; SIZE])]],
        );
        let heard = play(
            side.client.connect("raw.shop", port),
            &[send(vec![1; SIZE]), Step::HalfClose, Step::HearAll],
        );
        let all = application.heard();
        assert_eq!((heard.bytes.len(), heard.end), (SIZE, End::Closed));
        assert_eq!(all.first().map(|it| it.bytes.len()), Some(SIZE));
        assert!(heard.bytes.iter().all(|byte| *byte == 2));
    }
}

#[test]
fn a_connection_that_nobody_accepts_is_reset_after_it_was_accepted() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let port = pair.port();
    let refused = pair.plain.client.try_connect("raw.shop", port);
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    // docs/differences.md: who redirects can only accept, then reset.
    let heard = play(
        pair.meshed.client.connect("raw.shop", port),
        &[send("\u{1}"), Step::HearAll],
    );
    assert_eq!((heard.bytes.len(), heard.end), (0, End::Reset));
    pair.meshed.application.logs("the refusal", |line| {
        line["kind"] == "connection" && line["fault"]["reason"] == "connect-refused"
    });
}

#[test]
fn a_silent_client_costs_the_application_a_connection_that_says_nothing() {
    if !world::possible() {
        return;
    }
    // docs/differences.md: whether the server speaks first is found by asking it.
    let pair = Pair::new();
    let port = pair.port();
    let listener = pair.meshed.application.listen(port);
    let client = pair.meshed.client.connect("raw.shop", port);
    let trial = accept(&listener).expect("a trial");
    let ask = [send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Step::Hear("hi")];
    let application = Application::start(
        listener,
        vec![vec![
            Step::Hear("\r\n\r\n"),
            send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        ]],
    );
    assert!(play(client, &ask).text().ends_with("hi"));
    assert_eq!(application.heard().len(), 1);
    let heard = play(trial, &[Step::HearAll]);
    assert!(heard.bytes.is_empty(), "{heard:?}");
}

const GET: &str = "GET /late HTTP/1.1\r\nHost: raw.shop\r\nConnection: close\r\n\r\n";

/// Longer than `WEFT_CLIENT_SILENCE`, shorter than the time that a silent
/// client has before it is refused.
fn slow_to_speak() -> Step {
    Step::Silence(Duration::from_millis(200))
}

fn faults(of: &Pod, labels: &[(&str, &str)]) -> f64 {
    of.metrics().sum("weft_traffic_faults_total", labels)
}

#[test]
fn a_client_that_is_slow_to_speak_http_is_told_why_it_is_not_served() {
    if !world::possible() {
        return;
    }
    let denied = "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: nobody, namespace: shop}\nspec:\n  selector: {matchLabels: {app: denied}}\n  rules: [{action: Deny, from: {namespaces: [shop]}}]\n---\n";
    let manifests = [
        &world::service("shop/dead", &[9000]),
        &world::service("shop/denied", &[9000]),
        &world::service("shop/outside", &[9000]),
        "apiVersion: v1\nkind: Service\nmetadata: {name: empty, namespace: shop}\nspec:\n  selector: {app: none}\n  ports: [{name: p, port: 9000}]\n---\n",
        denied,
    ];
    let mesh = World::with(true, &manifests.concat(), &[]);
    let dead = mesh.idle("shop/dead-0");
    let denied = mesh.idle("shop/denied-0");
    let listener = denied.listen(9000);
    let _outside = mesh
        .pod("shop/outside-0")
        .flag("--no-mesh")
        .run(["sleep", "infinity"]);
    let client = mesh.idle("shop/client-0");
    wait::until("the policy and the endpoints", || {
        let ask = [send(GET), Step::HearAll];
        let told = |name: &str| play(client.connect(name, 9000), &ask).text();
        (told("denied.shop").contains("access-denied")
            && told("outside.shop").contains("connect-refused"))
        .then_some(())
    });
    let before = [&client, &dead, &denied].map(|pod| faults(pod, &[]));
    for (name, status, reason) in [
        ("dead.shop", "503", "connect-refused"),
        ("denied.shop", "403", "access-denied"),
        ("outside.shop", "503", "connect-refused"),
        ("empty.shop", "503", "no-endpoints"),
    ] {
        let script = [slow_to_speak(), send(GET), Step::HearAll];
        let text = play(client.connect(name, 9000), &script).text();
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status}")),
            "{name}: {text}"
        );
        assert!(text.contains(reason), "{name}: {text}");
    }
    // What was dialled for silence is no fault of anybody: the requests alone count.
    let after = [&client, &dead, &denied].map(|pod| faults(pod, &[]));
    let counted: Vec<f64> = after
        .iter()
        .zip(before)
        .map(|(now, then)| now - then)
        .collect();
    assert_eq!(counted, [2.0, 1.0, 1.0]);

    // Who waits for the server to speak waits in vain, but not for long.
    for name in ["dead.shop", "denied.shop", "outside.shop", "empty.shop"] {
        let script = [slow_to_speak(), Step::HearAll];
        let heard = play(client.connect(name, 9000), &script);
        assert_eq!((heard.bytes.len(), heard.end), (0, End::Reset), "{name}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(
        listener.accept().is_err(),
        "a denied client reached the application"
    );
}
