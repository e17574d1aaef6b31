//! The HTTP/1 codec beside hyper: what we accept, hyper reads the same way.
//!
//! The other direction does not hold: hyper is lenient where a sidecar must
//! not be. Where even hyper refuses what we pass on, it is listed here.

use weft_proxy::seams::http1::{Asked, End, read_requests, read_responses};
use weft_tests::corpus::{Case, Verdict, parse};
use weft_tests::reference::{self, Opinion, normalised};

/// Legal, passed on, and refused by hyper.
const REFUSED_BY_HYPER: &[(&str, &str)] = &[(
    "a target with what RFC 3986 would encode",
    "hyper's Uri refuses some bytes that browsers send and servers take",
)];

/// Legal, passed on, and told differently by hyper.
const TOLD_DIFFERENTLY: &[(&str, &str)] =
    &[("a reason phrase that is not ASCII", "hyper hides it")];

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn is_listed(list: &[(&str, &str)], case: &Case) -> bool {
    list.iter().any(|(name, _)| *name == case.name)
}

/// What differs between our reading and hyper's.
fn compare(
    case: &Case,
    ours: &[weft_proxy::seams::http1::Message],
    theirs: &Opinion,
) -> Option<String> {
    let ours: Vec<_> = ours.iter().map(normalised).collect();
    let messages: Vec<_> = theirs.messages.iter().map(normalised).collect();
    let refused = messages.len() < ours.len();
    match (refused, ours == messages) {
        (true, _) if is_listed(REFUSED_BY_HYPER, case) => None,
        (true, _) => Some(format!("{}: hyper refuses: {:?}", case.name, theirs.error)),
        (false, false) if is_listed(TOLD_DIFFERENTLY, case) => None,
        (false, false) => Some(format!(
            "{}:\n  we read    {ours:?}\n  hyper reads {messages:?}",
            case.name
        )),
        (false, true) if is_listed(REFUSED_BY_HYPER, case) || is_listed(TOLD_DIFFERENTLY, case) => {
            Some(format!(
                "{}: listed as an exception, and is none",
                case.name
            ))
        }
        (false, true) => None,
    }
}

#[test]
fn hyper_reads_the_legal_requests_as_we_do() {
    let cases = parse(include_str!("../corpus/http1/requests-legal.txt"));
    let accepted: Vec<_> = cases
        .iter()
        .filter(|case| matches!(case.verdict, Verdict::Accepted(_)))
        .collect();
    assert!(accepted.len() > 80);
    let wrong: Vec<_> = accepted
        .into_iter()
        .filter_map(|case| {
            let ours = read_requests([&case.input[..]]);
            assert_eq!(ours.end, End::Clean, "{}", case.name);
            compare(case, &ours.messages, &run(reference::requests(&case.input)))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hyper_reads_what_we_pass_on_as_we_read_it() {
    let cases = parse(include_str!("../corpus/http1/requests-legal.txt"));
    let wrong: Vec<_> = cases
        .iter()
        .filter(|case| matches!(case.verdict, Verdict::Accepted(_)))
        .filter_map(|case| {
            let ours = read_requests([&case.forwarded[..]]);
            compare(
                case,
                &ours.messages,
                &run(reference::requests(&case.forwarded)),
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hyper_reads_the_legal_responses_as_we_do() {
    let cases = parse(include_str!("../corpus/http1/responses-legal.txt"));
    assert!(cases.len() > 40);
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let asked = match case.asked.as_str() {
                "HEAD" => Asked::Head,
                "UPGRADE" => Asked::Upgrade,
                "HTTP/1.0" => Asked::Http10,
                _ => Asked::Get,
            };
            let ours = read_responses([&case.input[..]], asked);
            assert_eq!(ours.end, End::Clean, "{}", case.name);
            let last = ours.messages.last().cloned();
            compare(
                case,
                last.as_slice(),
                &run(reference::responses(&case.input, asked)),
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
