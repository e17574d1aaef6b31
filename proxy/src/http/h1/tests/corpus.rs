//! Every case of the corpus gets its verdict, and its bytes go on as told.

use super::reader::{Case, Verdict, parse};
use crate::seams::http1::{Asked, End, Read, read_requests, read_responses};

macro_rules! corpus {
    ($file:literal) => {
        parse(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/corpus/http1/",
            $file
        )))
    };
}

pub(super) fn requests() -> Vec<Case> {
    let mut cases = corpus!("requests-hostile.txt");
    cases.extend(corpus!("requests-legal.txt"));
    cases
}

pub(super) fn responses() -> Vec<Case> {
    let mut cases = corpus!("responses-hostile.txt");
    cases.extend(corpus!("responses-legal.txt"));
    cases
}

pub(super) fn asked(case: &Case) -> Asked {
    match case.asked.as_str() {
        "GET" => Asked::Get,
        "HEAD" => Asked::Head,
        "UPGRADE" => Asked::Upgrade,
        "HTTP/1.0" => Asked::Http10,
        other => panic!("{}: nobody asks {other}", case.name),
    }
}

/// What a case gets wrong, if anything.
fn judge(case: &Case, read: &Read) -> Option<String> {
    let verdict = match &read.end {
        End::Clean => Verdict::Accepted(read.messages.len()),
        End::Incomplete => Verdict::Incomplete(read.messages.len()),
        End::Refused(fault, flaw) => Verdict::Refused((*fault).to_owned(), flaw.clone()),
    };
    if verdict != case.verdict {
        return Some(format!(
            "{}: {verdict:?} instead of {:?}",
            case.name, case.verdict
        ));
    }
    if read.forwarded != case.forwarded {
        let (is, due) = (read.forwarded.escape_ascii(), case.forwarded.escape_ascii());
        return Some(format!(
            "{}: passed on\n    {is}\n  instead of\n    {due}",
            case.name
        ));
    }
    if !case.input.starts_with(&case.begun) {
        return Some(format!(
            "{}: what has begun is not how it begins",
            case.name
        ));
    }
    let last = read.messages.last()?;
    if matches!(verdict, Verdict::Accepted(_)) {
        let body = case.body.clone().unwrap_or_default();
        if last.body != body || last.trailers != case.trailers {
            return Some(format!("{}: body or trailers differ: {last:?}", case.name));
        }
    }
    None
}

#[test]
fn every_request_of_the_corpus_gets_its_verdict() {
    let cases = requests();
    assert!(cases.len() > 200, "the corpus shrank to {}", cases.len());
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| judge(case, &read_requests([&case.input[..]])))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_response_of_the_corpus_gets_its_verdict() {
    let cases = responses();
    assert!(cases.len() > 80, "the corpus shrank to {}", cases.len());
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| judge(case, &read_responses([&case.input[..]], asked(case))))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_flaw_but_a_truncated_request_is_provoked() {
    let provoked: Vec<_> = requests()
        .into_iter()
        .chain(responses())
        .filter_map(|case| match case.verdict {
            Verdict::Refused(_, flaw) => Some(flaw),
            Verdict::Accepted(_) | Verdict::Incomplete(_) => None,
        })
        .collect();
    for bad in super::Bad::ALL {
        assert!(
            provoked.contains(&format!("{bad:?}")),
            "no case provokes {bad:?}"
        );
    }
}

#[test]
fn what_is_passed_on_reads_the_same_again() {
    for case in requests() {
        let first = read_requests([&case.input[..]]);
        let again = read_requests([&first.forwarded[..]]);
        assert_eq!(again.end, End::Clean, "{}", case.name);
        assert_eq!(again.forwarded, first.forwarded, "{}", case.name);
        for (one, two) in first.messages.iter().zip(&again.messages) {
            assert_eq!(
                (&one.start, &one.body),
                (&two.start, &two.body),
                "{}",
                case.name
            );
        }
    }
}
