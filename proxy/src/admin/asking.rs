//! What a port asks of the application, from inside the pod: the health port its
//! probes and hooks, the metrics port its metrics.
//!
//! Between the ports of `admin` and `probe` and `application`, which know how.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};

use super::{
    answer,
    application::{ApplicationMetrics, Passing},
    probe::{Answered, From, Probes},
    text,
};
use crate::addr::canonical;

/// A page of ours, or the application's.
pub(super) type Carried = Either<Full<Bytes>, Passing>;

/// The application, and how it is asked.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) what: What,
    pub(super) mark: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Probes(Rc<Probes>),
    Metrics(Rc<ApplicationMetrics>),
}

impl Asking {
    /// How long that may take, beyond what any answer may.
    pub(super) fn longest(&self) -> Duration {
        match &self.what {
            What::Probes(probes) => probes.longest(),
            What::Metrics(_) => Duration::ZERO,
        }
    }

    /// `None`: it is not about the application. An error ends the connection
    /// without an answer.
    pub(super) async fn carry_out(
        &self,
        path: &str,
        headers: &HeaderMap,
        own: SocketAddr,
    ) -> Option<io::Result<Response<Carried>>> {
        let address = canonical(own).ip();
        let plain = |why: String, status| {
            answer(status, "text/plain; charset=utf-8", why.into()).map(Either::Left)
        };
        match &self.what {
            What::Probes(probes) => {
                let answered = probes.carry_out(path, headers, address, self.mark).await?;
                Some(match answered {
                    Answered::Status(status) => {
                        Ok(text(status, "as the application answered\n").map(Either::Left))
                    }
                    Answered::Well => Ok(text(StatusCode::OK, "well\n").map(Either::Left)),
                    Answered::Badly(why) => {
                        Ok(plain(format!("{why}\n"), StatusCode::SERVICE_UNAVAILABLE))
                    }
                    Answered::Nothing => Err(io::ErrorKind::ConnectionAborted.into()),
                })
            }
            What::Metrics(metrics) => {
                let agent = headers.get(header::USER_AGENT).cloned();
                let from = From {
                    address,
                    mark: self.mark,
                    agent: agent.unwrap_or(HeaderValue::from_static("weft-proxy")),
                };
                let fetched = metrics.fetch(path, headers, &from).await?;
                Some(Ok(match fetched {
                    Ok(page) => page.map(Either::Right),
                    Err((status, why)) => plain(why, status),
                }))
            }
        }
    }
}
