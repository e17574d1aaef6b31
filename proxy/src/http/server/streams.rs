//! HTTP/2 as `server` reads it: streams, and lanes among them.
//!
//! Streams and lanes are futures of the connection's own task. Lanes are for
//! peer proxies alone, WebSockets (RFC 8441) are requests like others; every
//! other CONNECT is refused by name.

use std::{future::poll_fn, pin::pin};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use h2::{RecvStream, server::SendResponse};
use http::{Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::{
    drain::Phase,
    http::{
        answer::{self, ATTEMPT},
        exchange::{Call, Planner, exchange},
        h1::Limits,
        two::{self, Two},
    },
    outcome::{Outcome, Reason},
    record::Head,
    request::Request,
    wire::{LANE_PROTOCOL, Wire},
};

use super::{
    LINGER, Server,
    unfinished::{Starts, watched},
};

impl<P: Planner> Server<P> {
    /// Serves until either side closes.
    pub(crate) async fn http2<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S) {
        let mut builder = h2::server::Builder::new();
        let config = &self.config;
        builder
            .initial_window_size(config.stream_window)
            .initial_connection_window_size(config.connection_window)
            .max_concurrent_streams(config.streams)
            // Ours answers with the mesh's own 431; h2's limit lies behind it.
            .max_header_list_size(header_list(&self.limits()).saturating_mul(2))
            .max_pending_accept_reset_streams(config.resets)
            .max_local_error_reset_streams(Some(config.resets))
            .max_send_buffer_size(SEND_BUFFER)
            // For lanes and WebSockets. Announced before it is known whether the
            // application takes those: a client reads it once, at the start.
            .enable_connect_protocol();
        let starts = if self.is_mesh {
            Starts::AtOnce
        } else {
            Starts::WithFirstByte
        };
        let (io, mut overdue) = watched(io, config.header_timeout, starts);
        let handshake = tokio::select! {
            biased;
            handshake = Box::pin(builder.handshake::<_, Bytes>(io)) => handshake,
            () = poll_fn(|cx| overdue.poll(cx)) => {
                return self.refuse_connection(Reason::HeaderTimeout);
            }
        };
        let mut connection = match handshake {
            Ok(connection) => connection,
            Err(error) if error.is_io() => return,
            Err(_) => return self.refuse_connection(Reason::MalformedRequest),
        };
        let mut drain = self.drain.clone();
        let (mut is_used, mut is_retired) = (false, false);
        let mut streams = pin!(FuturesUnordered::new());
        loop {
            tokio::select! {
                biased;
                Some(()) = streams.next(), if !streams.is_empty() => {}
                next = connection.accept() => match next {
                    Some(Ok((request, respond))) => {
                        is_used = true;
                        streams.push(self.stream(request, respond));
                    }
                    // Whoever breaks the rules of the connection ends it for all its streams.
                    Some(Err(error)) if is_ours(&error) => {
                        break self.refuse_connection(Reason::MalformedRequest);
                    }
                    Some(Err(_)) | None => break,
                },
                // To a client a connection that ends before its first stream has failed.
                () = drain.reached(if is_used { self.retires() } else { Phase::Stopping }), if !is_retired => {
                    is_retired = true;
                    // Two steps: what was sent before it arrives is still served.
                    connection.graceful_shutdown();
                }
                // After whatever reads.
                () = poll_fn(|cx| overdue.poll(cx)) => {
                    self.refuse_connection(Reason::HeaderTimeout);
                    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                    // Who doesn't even take the last frame loses it.
                    let _ = timeout(LINGER, poll_fn(|cx| connection.poll_closed(cx))).await;
                    break;
                }
            }
        }
    }

    /// The peer is told by GOAWAY; here it becomes a fault with a name.
    fn refuse_connection(&self, reason: Reason) {
        let fault = reason.at(self.cx.side);
        let record = self.record.request(&Head::default());
        record.finish(Outcome::Faulted(fault));
    }

    #[expect(
        clippy::large_futures,
        reason = "a stream's future has a box of its own"
    )]
    async fn stream(&self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let mut request = two::Request(parts);
        let is_tunnel = request.is_websocket();
        if request.is_connect() && !is_tunnel {
            Box::pin(self.connect(&request, body, respond)).await;
            return;
        }
        let host = request.settle_host();
        let field = |name: &str| request.0.headers.get(name).map(|value| value.as_bytes());
        let attempt = if self.is_mesh {
            answer::attempt(field(ATTEMPT))
        } else {
            1
        };
        let record = self.record.request(&Head {
            method: request.method().as_bytes(),
            path: request
                .0
                .uri
                .path_and_query()
                .map_or("", |target| target.as_str())
                .as_bytes(),
            authority: request
                .0
                .uri
                .authority()
                .map_or("", |authority| authority.as_str())
                .as_bytes(),
            traceparent: field("traceparent"),
        });
        let answer = two::Answer::new(respond, &request, self.is_mesh);
        let refused = host.and_then(|()| self.fits(&request));
        let mut call = Call::<Two> {
            body: if is_tunnel {
                two::Incoming::of_tunnel(body)
            } else {
                two::Incoming::new(body)
            },
            answer,
            request,
            attempt,
        };
        match refused {
            Ok(()) => exchange(&self.cx, &self.planner, &mut call, record).await,
            Err(reason) => {
                self.answer_fault::<Two>(reason, "", &mut call.answer, record)
                    .await
            }
        }
    }

    /// What an exchange may see.
    fn fits(&self, request: &two::Request) -> Result<(), Reason> {
        let limits = self.limits();
        if request.target_bytes() > limits.target_bytes {
            return Err(Reason::TargetTooLong);
        }
        let is_over = request.header_bytes() > header_list(&limits) as usize
            || request.0.headers.len() > limits.fields;
        if is_over {
            return Err(Reason::HeadersTooLarge);
        }
        Ok(())
    }

    /// A lane of a peer proxy; every other CONNECT is refused by name.
    async fn connect(
        &self,
        request: &two::Request,
        body: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) {
        let protocol = request.protocol();
        let is_lane =
            self.is_mesh && protocol.is_some_and(|protocol| protocol.as_str() == LANE_PROTOCOL);
        if !is_lane {
            let record = self.record.request(&Head {
                method: b"CONNECT",
                ..Head::default()
            });
            let mut answer = two::Answer::new(respond, request, self.is_mesh);
            self.answer_fault::<Two>(Reason::ConnectMethod, "", &mut answer, record)
                .await;
            return;
        }
        let mut accepted = Response::new(());
        *accepted.status_mut() = StatusCode::OK;
        // It fails only where the peer took the lane back meanwhile.
        if let Ok(sender) = respond.send_response(accepted, false) {
            self.http1(Wire::accepted_lane(body, sender)).await;
        }
    }
}

/// Did we end the connection, for what the peer sent?
fn is_ours(error: &h2::Error) -> bool {
    !error.is_io() && !error.is_remote() && error.reason() != Some(h2::Reason::NO_ERROR)
}

/// RFC 9113 §6.5.2 counts 32 bytes for each field beside its text.
fn header_list(limits: &Limits) -> u32 {
    let bytes = limits.head_bytes + limits.fields * 32;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Per stream, bytes that wait for the socket.
const SEND_BUFFER: usize = 256 * 1024;
