//! The endpoint's side of HTTP/1: the request on its way out, and the response.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::{
    discovery::{Backend, Endpoint, Security},
    http::{
        answer::ATTEMPT,
        h1::{
            self, Asked, Bad, BodyDecoder, Decoded, Fields, Framing, Limits, Persistence,
            ResponseHead, Scanner, Version,
        },
        message::{self, Broken, Chunk, Edit},
    },
    outcome::{Reason, Side},
    upstream::pool::{Lease, Pool, Wanted},
    wire::{self, Reader, Writer},
};

use super::{caller::Request, put};

#[derive(Debug)]
pub(crate) struct Response {
    pub(super) head: Box<ResponseHead>,
    pub(super) framing: Framing,
}

impl message::Response for Response {
    fn status(&self) -> u16 {
        self.head.status()
    }

    fn field(&self, name: &str) -> Option<&[u8]> {
        self.head.fields().get_all(name).next()
    }

    fn is_end(&self) -> bool {
        matches!(self.framing, Framing::None | Framing::Length(0))
    }

    fn is_switch(&self) -> bool {
        self.head.status() == 101
    }
}

impl message::Trailers for Box<Fields> {
    fn field(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }
}

#[derive(Debug)]
pub(crate) struct Upstream {
    wire: wire::Wire,
    lease: Lease,
    limits: Limits,
}

impl message::Upstream<Request> for Upstream {
    type Outgoing = Outgoing;
    type Responding = Responding;

    async fn open(
        pool: &Rc<Pool>,
        backend: &Backend,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted,
        limits: &Limits,
    ) -> Result<Self, Reason> {
        let (wire, lease) = pool.http1(backend, endpoint, wanted).await?;
        let limits = match endpoint.security {
            Security::Mesh { .. } => limits.of_mesh(),
            Security::Unmeshed => *limits,
        };
        Ok(Self {
            wire,
            lease,
            limits,
        })
    }

    fn is_reused(&self) -> bool {
        self.lease.is_reused
    }

    async fn send(
        self,
        request: &Request,
        edit: Edit<'_>,
        _last: bool,
    ) -> Result<(Outgoing, Responding), Broken> {
        let Self {
            wire,
            lease,
            limits,
        } = self;
        let wire::Wire { reader, mut writer } = wire;
        let framing = h1::request_framing(&request.0);
        let mut extra: SmallVec<[(HeaderName, HeaderValue); 1]> = SmallVec::new();
        if edit.mesh && edit.attempt > 1 {
            extra.push((
                HeaderName::from_static(ATTEMPT),
                HeaderValue::from(edit.attempt),
            ));
        }
        let head = h1::Edit {
            framing,
            // HTTP/1.0 keeps a connection only where both sides ask for it.
            persistence: match request.0.version() {
                Version::Http11 => Persistence::KeepAlive,
                Version::Http10 if request.0.keeps_alive() => Persistence::KeepAlive,
                Version::Http10 => Persistence::Close,
            },
            path: edit.path,
            host: edit
                .filters
                .and_then(|filters| filters.host.as_ref())
                .map(HeaderValue::as_bytes),
            fields: edit.filters.map(|filters| &filters.fields),
            extra: &extra,
        };
        h1::encode_request(&mut writer.buffer, &request.0, &head);
        let responding = Responding {
            reader,
            lease,
            scanner: Scanner::new(),
            decoder: None,
            asked: request.0.asked(),
            limits,
            is_closing: true,
        };
        Ok((Outgoing { writer, framing }, responding))
    }

    fn release(pool: &Pool, outgoing: Outgoing, responding: Responding) {
        let Responding {
            reader,
            lease,
            decoder,
            is_closing,
            ..
        } = responding;
        let is_complete = decoder.is_some_and(|decoder| decoder.is_done());
        if is_complete && !is_closing && outgoing.writer.buffer.is_empty() {
            pool.put_back(
                wire::Wire {
                    reader,
                    writer: outgoing.writer,
                },
                lease,
            );
        }
    }
}

#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) writer: Writer,
    framing: Framing,
}

impl message::Outgoing<Box<Fields>> for Outgoing {
    async fn data(&mut self, data: Bytes) -> Result<(), Broken> {
        put(&mut self.writer, self.framing, data)
            .await
            .map(|_| ())
            .map_err(|_| Broken::new(Reason::UpstreamReset))
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        self.writer
            .flush()
            .await
            .map_err(|_| Broken::new(Reason::UpstreamReset))
    }

    async fn end(&mut self, trailers: Option<&Box<Fields>>) -> Result<(), Broken> {
        if self.framing == Framing::Chunked {
            h1::encode_last_chunk(&mut self.writer.buffer, trailers.map(AsRef::as_ref));
        }
        self.flush().await
    }
}

#[derive(Debug)]
pub(crate) struct Responding {
    pub(super) reader: Reader,
    lease: Lease,
    scanner: Scanner,
    /// Of the final head's body.
    decoder: Option<BodyDecoder>,
    asked: Asked,
    limits: Limits,
    is_closing: bool,
}

impl message::Responding<Response, Box<Fields>> for Responding {
    async fn head(&mut self) -> Result<Response, Broken> {
        let malformed = |bad: Bad| Broken::new(bad.in_response());
        let head = loop {
            let parsed =
                h1::parse_response(&mut self.reader.buffer, &mut self.scanner, &self.limits);
            if let Some(head) = parsed.map_err(malformed)? {
                break head;
            }
            self.fill(Reason::UpstreamReset).await?;
        };
        let framing = h1::response_framing(&head, self.asked).map_err(malformed)?;
        if !head.is_informational() {
            self.decoder = Some(BodyDecoder::new(framing, &self.limits));
            self.is_closing =
                !head.keeps_alive() || framing == Framing::UntilClose || head.status() == 101;
        }
        Ok(Response {
            head: Box::new(head),
            framing,
        })
    }

    async fn next(&mut self) -> Result<Chunk<Box<Fields>>, Broken> {
        loop {
            let Some(decoder) = &mut self.decoder else {
                return Ok(Chunk::End);
            };
            match decoder.decode(&mut self.reader.buffer) {
                Ok(Decoded::Data(data)) => return Ok(Chunk::Data(data)),
                Ok(Decoded::Trailers(trailers)) => return Ok(Chunk::Trailers(trailers)),
                Ok(Decoded::End) => return Ok(Chunk::End),
                Ok(Decoded::NeedMore) => {}
                Err(bad) => return Err(Broken::new(bad.in_response())),
            }
            if self.fill_or_end(Reason::ResponseTruncated).await? == 0 {
                let Some(decoder) = &mut self.decoder else {
                    return Ok(Chunk::End);
                };
                return match decoder.end_of_stream() {
                    Ok(()) => Ok(Chunk::End),
                    Err(_) => Err(Broken::new(Reason::ResponseTruncated)),
                };
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.is_closing
    }
}

impl Responding {
    async fn fill(&mut self, reason: Reason) -> Result<(), Broken> {
        match self.fill_or_end(reason).await? {
            0 => Err(Broken::new(reason)),
            _ => Ok(()),
        }
    }

    async fn fill_or_end(&mut self, reason: Reason) -> Result<usize, Broken> {
        self.reader.fill().await.map_err(|error| {
            if let Some(reason) = self.lease.refusal() {
                return Broken::unread(reason);
            }
            match wire::ended(&error) {
                wire::Ended::Refused => Broken::unread(Reason::StreamRefused),
                wire::Ended::Told => Broken {
                    told: Some(Reason::ResponseTruncated.at(Side::Inbound)),
                    ..Broken::new(reason)
                },
                wire::Ended::Broken => Broken::new(reason),
            }
        })
    }
}
