//! Counts what a message says beyond what this proxy knows.
//!
//! Part of `decode`. The generated types drop unknown fields in silence, which
//! is right (`discovery.proto`: additive only) but would hide that the control
//! plane is newer. What came is held against what was understood of it.
//!
//! Pure, and never trusts the bytes: they are whatever the peer sent.

use std::collections::BTreeMap;

use prost::Message;

/// How many fields of `sent` are not in `read`, which was decoded from it.
///
/// Nothing is walked unless the lengths differ, so that messages of an equal
/// control plane cost a sum. A default that is sent all the same would count as
/// well; encoders leave defaults out.
pub(crate) fn count(sent: &[u8], read: &impl Message) -> u64 {
    if read.encoded_len() == sent.len() {
        return 0;
    }
    count_in(sent, &read.encode_to_vec())
}

fn count_in(sent: &[u8], read: &[u8]) -> u64 {
    let (Some(sent), Some(read)) = (fields(sent), fields(read)) else {
        return 0;
    };
    let mut unknown = 0;
    for (number, sent) in sent {
        match read.get(&number) {
            None => unknown += sent.len() as u64,
            // One that was merged of several can't be told apart any more.
            Some(read) if read.len() != sent.len() => {}
            Some(read) => {
                let differ = sent.iter().zip(read).filter(|(one, other)| one != other);
                // Text and bytes are equal where they were read: these are messages.
                unknown += differ
                    .map(|(sent, read)| match (sent, read) {
                        (Field::Bytes(sent), Field::Bytes(read)) => count_in(sent, read),
                        (_, _) => 0,
                    })
                    .sum::<u64>();
            }
        }
    }
    unknown
}

#[derive(PartialEq)]
enum Field<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// By field number, in order; `None` where it is no message.
fn fields(mut rest: &[u8]) -> Option<BTreeMap<u64, Vec<Field<'_>>>> {
    let mut fields: BTreeMap<_, Vec<_>> = BTreeMap::new();
    while !rest.is_empty() {
        let key = number(&mut rest)?;
        // https://protobuf.dev/programming-guides/encoding/#structure
        let field = match key & 7 {
            0 => {
                number(&mut rest)?;
                Field::Number
            }
            1 => {
                rest = rest.get(8..)?;
                Field::Number
            }
            2 => {
                let length = usize::try_from(number(&mut rest)?).ok()?;
                let (bytes, after) = rest.split_at_checked(length)?;
                rest = after;
                Field::Bytes(bytes)
            }
            5 => {
                rest = rest.get(4..)?;
                Field::Number
            }
            // Groups: nobody has sent any for ten years.
            _ => return None,
        };
        fields.entry(key >> 3).or_default().push(field);
    }
    Some(fields)
}

/// A varint.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_proto::v1;

    use super::*;
    use crate::control::fake::{cart, mesh};

    fn response() -> v1::WatchResponse {
        let mut resources = cart();
        resources.push(mesh());
        v1::WatchResponse {
            nonce: 7,
            resources,
            ..v1::WatchResponse::default()
        }
    }

    fn unknown(sent: &[u8]) -> u64 {
        count(sent, &v1::WatchResponse::decode(sent).unwrap())
    }

    /// Field 900 with a number, 901 with a text.
    const NEWER: [u8; 9] = [0xa0, 0x38, 0x2a, 0xaa, 0x38, 3, b'n', b'e', b'w'];

    /// `inner` as field `number` of a message.
    fn wrapped(number: u8, inner: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        prost::encode_length_delimiter(inner.len(), &mut bytes).unwrap();
        bytes.extend(inner);
        bytes
    }

    #[test]
    fn what_is_known_counts_nothing() {
        assert_eq!(unknown(&response().encode_to_vec()), 0);
    }

    #[test]
    fn unknown_fields_count_at_every_depth_and_leave_the_rest_as_it_is() {
        let mut top = response().encode_to_vec();
        top.extend(NEWER);
        assert_eq!(unknown(&top), 2);
        // In the second resource's body, and in the resource beside it.
        let mut service = v1::Service {
            namespace: "shop".to_owned(),
            name: "cart".to_owned(),
            ..v1::Service::default()
        }
        .encode_to_vec();
        service.extend(NEWER);
        let number = wire_number_of_service();
        let mut resource = wrapped(number, &service);
        resource.extend(NEWER);
        let mut sent = response().encode_to_vec();
        sent.extend(wrapped(2, &resource));
        sent.extend(wrapped(2, &resource));
        assert_eq!(unknown(&sent), 8);
        let read = v1::WatchResponse::decode(&*sent).unwrap();
        assert_eq!(read.resources.len(), 6);
        assert_eq!(read.resources[..4], response().resources);
    }

    /// Of the body's alternative, as the wire has it.
    fn wire_number_of_service() -> u8 {
        let body = v1::resource::Body::Service(v1::Service::default());
        let resource = v1::Resource {
            body: Some(body),
            ..v1::Resource::default()
        };
        resource.encode_to_vec()[0] >> 3
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>, cut in 0_usize..400) {
            if let Ok(read) = v1::WatchResponse::decode(&*bytes) {
                count(&bytes, &read);
            }
            let mut sent = response().encode_to_vec();
            sent.truncate(cut);
            sent.extend(&bytes);
            count(&sent, &response());
        }
    }
}
