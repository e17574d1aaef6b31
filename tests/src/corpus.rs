//! Reads the corpora of hostile and of odd messages, `tests/corpus/http1`.
//!
//! Its README holds the format. The unit tests of the codec and the
//! end-to-end tests read the same cases through it.

/// What a case expects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// So many messages.
    Accepted(usize),
    /// So many messages, then one that lacks bytes.
    Incomplete(usize),
    /// The fault, and the codec's own reason.
    Refused(String, String),
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub verdict: Verdict,
    /// What a response answers: `GET`, `HEAD`, `UPGRADE`, `HTTP/1.0`.
    pub asked: String,
    /// The last message's body, where the case tells it.
    pub body: Option<Vec<u8>>,
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub input: Vec<u8>,
    /// What the next hop gets.
    pub forwarded: Vec<u8>,
    /// Or a beginning of this: where the fault comes late, the head may be on
    /// its way.
    pub begun: Vec<u8>,
}

/// All cases of a file. Panics on what it does not understand: a case that is not run is no case.
pub fn parse(text: &str) -> Vec<Case> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .split(|line| line.trim().is_empty())
        .filter(|paragraph| !paragraph.is_empty())
        .map(parse_case)
        .collect()
}

fn parse_case(lines: &[&str]) -> Case {
    let (title, rest) = lines.split_first().expect("a paragraph has a line");
    let name = title
        .strip_prefix("== ")
        .unwrap_or_else(|| panic!("no case begins with {title:?}"));
    let mut verdict = None;
    let mut asked = "GET".to_owned();
    let mut body = None;
    let mut trailers = Vec::new();
    let mut input = Vec::new();
    let mut forwarded: Option<Vec<u8>> = None;
    let mut begun = Vec::new();
    for line in rest {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "<" => input.extend(unescape(value)),
            ">" => forwarded.get_or_insert_default().extend(unescape(value)),
            "begun:" => begun = unescape(value),
            "accepted:" => {
                verdict = Some(Verdict::Accepted(
                    value.parse().expect("a number of messages"),
                ))
            }
            "incomplete:" => {
                verdict = Some(Verdict::Incomplete(
                    value.parse().expect("a number of messages"),
                ))
            }
            "refused:" => {
                let (fault, flaw) = value.split_once(' ').expect("a fault and a flaw");
                verdict = Some(Verdict::Refused(fault.to_owned(), flaw.to_owned()));
            }
            "asked:" => value.clone_into(&mut asked),
            "body:" => body = Some(unescape(value)),
            "trailer:" => {
                let (name, value) = value.split_once(": ").expect("name and value");
                trailers.push((unescape(name), unescape(value)));
            }
            _ => panic!("{name}: unknown line {line:?}"),
        }
    }
    let verdict = verdict.unwrap_or_else(|| panic!("{name}: no verdict"));
    let forwarded = forwarded.unwrap_or_else(|| match verdict {
        Verdict::Accepted(_) => input.clone(),
        Verdict::Incomplete(_) | Verdict::Refused(..) => Vec::new(),
    });
    Case {
        name: name.to_owned(),
        verdict,
        asked,
        body,
        trailers,
        input,
        forwarded,
        begun,
    }
}

/// `\r \n \t \0 \\ \xNN`, and `${N*BYTES}`.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((count, tail)) = rest
            .strip_prefix("${")
            .and_then(|tail| tail.split_once('*'))
        {
            let (piece, tail) = tail.split_once('}').expect("a repetition ends");
            out.extend(unescape(piece).repeat(count.parse().expect("a repetition has a count")));
            rest = tail;
            continue;
        }
        let tail = rest.get(first.len_utf8()..).unwrap_or_default();
        if first != '\\' {
            out.extend_from_slice(first.encode_utf8(&mut [0; 4]).as_bytes());
            rest = tail;
            continue;
        }
        let escape = tail.chars().next().expect("an escape has a letter");
        let (bytes, length) = match escape {
            'r' => (b'\r', 1),
            'n' => (b'\n', 1),
            't' => (b'\t', 1),
            '0' => (b'\0', 1),
            '\\' => (b'\\', 1),
            'x' => {
                let digits = tail.get(1..3).expect("two digits");
                (
                    u8::from_str_radix(digits, 16).expect("hexadecimal digits"),
                    3,
                )
            }
            other => panic!("unknown escape {other:?} in {text:?}"),
        };
        out.push(bytes);
        rest = tail.get(length..).unwrap_or_default();
    }
    out
}
