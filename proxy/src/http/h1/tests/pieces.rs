//! How bytes arrive never changes what they mean.

use proptest::prelude::*;

use super::corpus::{asked, requests, responses};
use super::*;
use crate::seams::http1::{read_requests, read_responses};

#[test]
fn one_byte_at_a_time_reads_the_same() {
    for case in requests() {
        let mut whole = read_requests([&case.input[..]]);
        let mut slow = read_requests(case.input.chunks(1));
        // A chunk is passed on in the pieces in which it came.
        whole.forwarded.clear();
        slow.forwarded.clear();
        assert_eq!(slow, whole, "{}", case.name);
    }
    for case in responses() {
        let mut whole = read_responses([&case.input[..]], asked(&case));
        let mut slow = read_responses(case.input.chunks(1), asked(&case));
        whole.forwarded.clear();
        slow.forwarded.clear();
        assert_eq!(slow, whole, "{}", case.name);
    }
}

fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn any_split_reads_the_same(
        case in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let cases = requests();
        let case = case.get(&cases);
        let mut whole = read_requests([&case.input[..]]);
        let mut parts = read_requests(split(&case.input, &cuts));
        whole.forwarded.clear();
        parts.forwarded.clear();
        prop_assert_eq!(parts, whole);
    }

    #[test]
    fn what_is_written_is_read_again(
        fields in prop::collection::vec(("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", "[ -~\u{80}-\u{ff}]{0,40}"), 0..20),
        body in prop::collection::vec(any::<u8>(), 0..200),
        chunk in 1_usize..50,
    ) {
        let mut text = String::from("PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n");
        for (name, value) in &fields {
            prop_assume!(crate::http::headers::Name::of(name.as_bytes()) == crate::http::headers::Name::Other);
            text.push_str(&format!("{name}:{value}\r\n"));
        }
        let mut bytes = BytesMut::from(format!("{text}\r\n").as_bytes());
        for piece in body.chunks(chunk) {
            encode_chunk(&mut bytes, piece);
        }
        encode_last_chunk(&mut bytes, None);
        let read = read_requests([&bytes[..]]);
        prop_assert_eq!(read.messages.len(), 1);
        prop_assert_eq!(&read.messages[0].body, &body);
        prop_assert_eq!(read.messages[0].fields.len(), fields.len() + 2);
        prop_assert_eq!(&read.forwarded, &bytes);
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_requests([&bytes[..]]);
        read_responses([&bytes[..]], crate::seams::http1::Asked::Get);
    }
}

#[test]
fn a_body_is_taken_without_copying() {
    let mut buffer = BytesMut::from("helloworld");
    let start = buffer.as_ptr();
    let mut decoder = BodyDecoder::new(Framing::Length(5), &Limits::default());
    let Ok(Decoded::Data(data)) = decoder.decode(&mut buffer) else {
        panic!("data is there")
    };
    assert_eq!((data.as_ptr(), &data[..]), (start, &b"hello"[..]));
    assert!(decoder.is_done());
    assert!(matches!(decoder.decode(&mut buffer), Ok(Decoded::End)));
    assert_eq!(&buffer[..], b"world");
}

#[test]
fn only_a_body_until_close_may_end_with_the_connection() {
    for (framing, ends) in [
        (Framing::None, Ok(())),
        (Framing::Length(0), Ok(())),
        (Framing::UntilClose, Ok(())),
        (Framing::Length(1), Err(Bad::Truncated)),
        (Framing::Chunked, Err(Bad::Truncated)),
    ] {
        assert_eq!(
            BodyDecoder::new(framing, &Limits::default()).end_of_stream(),
            ends,
            "{framing:?}"
        );
    }
}

#[test]
fn a_body_of_the_greatest_length_wants_more() {
    let mut decoder = BodyDecoder::new(Framing::Length(u64::MAX), &Limits::default());
    let mut buffer = BytesMut::from("x");
    assert!(matches!(decoder.decode(&mut buffer), Ok(Decoded::Data(_))));
    assert!(matches!(decoder.decode(&mut buffer), Ok(Decoded::NeedMore)));
}
