//! What the tests outside of this crate may reach; nothing in production uses it.
//!
//! `http1` drives the codec the way a connection does, over bytes that arrive
//! in pieces, and tells in plain types what it read and what it would pass on;
//! `parsers` are the smaller ones.

/// The HTTP/1 codec.
pub mod http1 {
    use bytes::{Bytes, BytesMut};

    use crate::http::h1::{self, Bad, BodyDecoder, Decoded, Edit, Fields, Framing, Limits};
    use crate::http::h1::{Persistence, Scanner, Version};

    /// Name and value, as they came.
    pub type Field = (Vec<u8>, Vec<u8>);

    /// A message that was read to its end.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Message {
        pub start: Start,
        pub version: &'static str,
        pub fields: Vec<Field>,
        pub body: Vec<u8>,
        pub trailers: Vec<Field>,
    }

    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Start {
        Request { method: String, target: Vec<u8> },
        Response { status: u16, reason: Vec<u8> },
    }

    /// What follows the last message.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum End {
        Clean,
        /// A message that has begun and needs more bytes.
        Incomplete,
        /// The fault's name and the codec's own reason.
        Refused(&'static str, String),
    }

    /// Everything that was read.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Read {
        pub messages: Vec<Message>,
        pub end: End,
        /// The same messages as an application's edge gets them.
        pub forwarded: Vec<u8>,
    }

    /// What a response answers.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Asked {
        Get,
        Head,
        Upgrade,
        Http10,
    }

    impl Asked {
        fn of_codec(self) -> h1::Asked {
            h1::Asked {
                version: if self == Self::Http10 {
                    Version::Http10
                } else {
                    Version::Http11
                },
                head: self == Self::Head,
                upgrade: self == Self::Upgrade,
            }
        }
    }

    /// A connection whose bytes arrive in pieces.
    struct Feed<I> {
        pieces: I,
        buffer: BytesMut,
        scanner: Scanner,
        limits: Limits,
    }

    /// A body with its trailers, and what passes it on.
    struct Body {
        data: Vec<u8>,
        trailers: Vec<Field>,
        written: BytesMut,
    }

    enum Stop {
        Incomplete,
        Bad(Bad),
    }

    impl From<Bad> for Stop {
        fn from(bad: Bad) -> Self {
            Self::Bad(bad)
        }
    }

    impl<'a, I: Iterator<Item = &'a [u8]>> Feed<I> {
        fn new(pieces: impl IntoIterator<IntoIter = I>) -> Self {
            Self {
                pieces: pieces.into_iter(),
                buffer: BytesMut::new(),
                scanner: Scanner::new(),
                limits: Limits::default(),
            }
        }

        /// `false` at the end of the stream.
        fn arrive(&mut self) -> bool {
            let piece = self.pieces.next();
            self.buffer.extend_from_slice(piece.unwrap_or_default());
            piece.is_some()
        }

        /// The next head; `None` if the stream ended between two messages.
        fn head<T>(
            &mut self,
            parse: impl Fn(&mut BytesMut, &mut Scanner, &Limits) -> Result<Option<T>, Bad>,
        ) -> Result<Option<T>, Stop> {
            loop {
                if let Some(head) = parse(&mut self.buffer, &mut self.scanner, &self.limits)? {
                    return Ok(Some(head));
                }
                if !self.arrive() {
                    return if self.buffer.is_empty() {
                        Ok(None)
                    } else {
                        Err(Stop::Incomplete)
                    };
                }
            }
        }

        fn body(&mut self, framing: Framing, written_as: Framing) -> Result<Body, Stop> {
            let mut body = Body {
                data: Vec::new(),
                trailers: Vec::new(),
                written: BytesMut::new(),
            };
            let mut last = None;
            let mut decoder = BodyDecoder::new(framing, &self.limits);
            loop {
                match decoder.decode(&mut self.buffer)? {
                    Decoded::Data(data) => body.add(&data, written_as),
                    Decoded::Trailers(fields) => {
                        body.trailers = plain(&fields);
                        last = Some(fields);
                    }
                    Decoded::NeedMore if self.arrive() => {}
                    Decoded::NeedMore => decoder.end_of_stream()?,
                    Decoded::End => break,
                }
            }
            if written_as == Framing::Chunked {
                h1::encode_last_chunk(&mut body.written, last.as_deref());
            }
            Ok(body)
        }
    }

    impl Body {
        fn add(&mut self, data: &Bytes, written_as: Framing) {
            self.data.extend_from_slice(data);
            if written_as == Framing::Chunked {
                h1::encode_chunk(&mut self.written, data);
            } else {
                self.written.extend_from_slice(data);
            }
        }
    }

    fn plain(fields: &Fields) -> Vec<Field> {
        fields
            .iter()
            .map(|field| (field.name.to_vec(), field.value.to_vec()))
            .collect()
    }

    fn edit(framing: Framing, persistence: Persistence) -> Edit<'static> {
        Edit {
            framing,
            path: None,
            host: None,
            fields: None,
            persistence,
            extra: &[],
        }
    }

    /// Reads requests until the bytes end or one is refused.
    pub fn read_requests<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let mut feed = Feed::new(pieces);
        let mut read = Read {
            messages: Vec::new(),
            end: End::Clean,
            forwarded: Vec::new(),
        };
        loop {
            match read_request(&mut feed, &mut read) {
                Ok(true) => {}
                Ok(false) => return read,
                // Nobody answers a request whose sender has left.
                Err(Stop::Incomplete | Stop::Bad(Bad::Truncated)) => read.end = End::Incomplete,
                Err(Stop::Bad(bad)) => {
                    read.end = End::Refused(bad.in_request().as_str(), format!("{bad:?}"))
                }
            }
            if read.end != End::Clean {
                return read;
            }
        }
    }

    fn read_request<'a>(
        feed: &mut Feed<impl Iterator<Item = &'a [u8]>>,
        read: &mut Read,
    ) -> Result<bool, Stop> {
        let Some(head) = feed.head(h1::parse_request)? else {
            return Ok(false);
        };
        let framing = h1::request_framing(&head);
        let body = feed.body(framing, framing)?;
        let persists = head.version() == Version::Http11 || head.keeps_alive();
        let persistence = if persists {
            Persistence::KeepAlive
        } else {
            Persistence::Close
        };
        let mut out = BytesMut::new();
        h1::encode_request(&mut out, &head, &edit(framing, persistence));
        read.forwarded.extend_from_slice(&out);
        read.forwarded.extend_from_slice(&body.written);
        read.messages.push(Message {
            start: Start::Request {
                method: head.method().to_owned(),
                target: head.target().to_vec(),
            },
            version: head.version().as_str(),
            fields: plain(head.fields()),
            body: body.data,
            trailers: body.trailers,
        });
        Ok(true)
    }

    /// Reads informational responses and the final one.
    pub fn read_responses<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, asked: Asked) -> Read {
        let mut feed = Feed::new(pieces);
        let mut read = Read {
            messages: Vec::new(),
            end: End::Clean,
            forwarded: Vec::new(),
        };
        loop {
            match read_response(&mut feed, asked.of_codec(), &mut read) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(Stop::Incomplete) => read.end = End::Incomplete,
                Err(Stop::Bad(bad)) => {
                    read.end = End::Refused(bad.in_response().as_str(), format!("{bad:?}"))
                }
            }
            return read;
        }
    }

    /// `false` after the final one.
    fn read_response<'a>(
        feed: &mut Feed<impl Iterator<Item = &'a [u8]>>,
        asked: h1::Asked,
        read: &mut Read,
    ) -> Result<bool, Stop> {
        let Some(head) = feed.head(h1::parse_response)? else {
            return Err(Stop::Incomplete);
        };
        let framing = h1::response_framing(&head, asked)?;
        let written_as = asked.reframe(framing);
        let body = feed.body(framing, written_as)?;
        let persistence = match written_as {
            Framing::UntilClose => Persistence::Close,
            Framing::None | Framing::Length(_) | Framing::Chunked => Persistence::KeepAlive,
        };
        let mut out = BytesMut::new();
        h1::encode_response(&mut out, &head, asked, &edit(written_as, persistence));
        read.forwarded.extend_from_slice(&out);
        read.forwarded.extend_from_slice(&body.written);
        read.messages.push(Message {
            start: Start::Response {
                status: head.status(),
                reason: head.reason().to_vec(),
            },
            version: head.version().as_str(),
            fields: plain(head.fields()),
            body: body.data,
            trailers: body.trailers,
        });
        Ok(head.is_informational())
    }
}

/// The smaller parsers of network bytes. Each may refuse anything, and must
/// hold what its doc says for whatever it accepts.
pub mod parsers {
    use crate::{
        control, detect,
        http::{answer, deadline},
        record::TraceId,
        request::path,
    };

    /// The protocol that a connection's first bytes name, in words.
    pub fn classify(bytes: &[u8]) -> &'static str {
        match detect::classify(bytes) {
            detect::Verdict::NeedMore => "need-more",
            detect::Verdict::Http1 => "http1",
            detect::Verdict::Http2 => "http2",
            detect::Verdict::Tls => "tls",
            detect::Verdict::Opaque => "opaque",
        }
    }

    /// ALPN names of a ClientHello, once it is complete.
    pub fn client_hello(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        match detect::client_hello(bytes) {
            detect::Hello::Complete(hello) => Some(hello.alpn),
            detect::Hello::NeedMore | detect::Hello::Unreadable => None,
        }
    }

    /// The canonical form of a path, where it has one.
    pub fn canonical_path(raw: &[u8]) -> Option<Vec<u8>> {
        path::canonical(raw).ok().map(std::borrow::Cow::into_owned)
    }

    /// The trace ID of a `traceparent`.
    pub fn traceparent(value: &[u8]) -> Option<String> {
        TraceId::from_traceparent(value).map(|id| id.as_str().to_owned())
    }

    /// Milliseconds of a `grpc-timeout`.
    pub fn grpc_timeout(value: &[u8]) -> Option<u128> {
        deadline::parse_grpc_timeout(value).map(|time| time.as_millis())
    }

    /// Side and reason of a `weft-fault`.
    pub fn fault(value: &[u8]) -> Option<(&'static str, &'static str)> {
        answer::heard(value).map(|fault| (fault.side.as_str(), fault.reason.as_str()))
    }

    /// Whether a discovery response was read; what is invalid in it is left out.
    pub fn discovery(bytes: &[u8]) -> bool {
        control::reads(bytes)
    }
}
