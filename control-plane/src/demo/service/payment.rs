//! The gRPC service `shop.Payment`, and how it is called.
//!
//! Two messages and one method, written by hand: the demo needs no code
//! generator. Every n-th charge is refused as UNAVAILABLE, exactly.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::uri::PathAndQuery;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::{Code, Status, transport::Channel};
use tonic_prost::ProstCodec;

use super::serve;
use crate::demo::job::Answer;

const CHARGE: &str = "/shop.Payment/Charge";
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Payment {
    /// Who answers
    #[arg(long)]
    name: String,
    #[arg(long, default_value_t = 9090)]
    port: u16,
    /// Every so many-th charge is refused; 0: none
    #[arg(long, default_value_t = 0)]
    refuses_every: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Charge {
    #[prost(uint32, tag = "1")]
    cents: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Receipt {
    #[prost(string, tag = "1")]
    served_by: String,
    #[prost(uint64, tag = "2")]
    number: u64,
}

pub(crate) async fn run(payment: &Payment) -> anyhow::Result<()> {
    let payment = Arc::new(payment.clone());
    let charges = Arc::new(AtomicU64::new(0));
    serve(payment.port, |stream| {
        let (payment, charges) = (Arc::clone(&payment), Arc::clone(&charges));
        async move {
            let handle = service_fn(move |request| {
                let number = charges.fetch_add(1, Ordering::Relaxed) + 1;
                let payment = Arc::clone(&payment);
                async move {
                    let method = tower::service_fn(|_: tonic::Request<Charge>| {
                        std::future::ready(charge(&payment, number))
                    });
                    let codec = ProstCodec::<Receipt, Charge>::default();
                    let answer = tonic::server::Grpc::new(codec).unary(method, request).await;
                    Ok::<_, Infallible>(answer)
                }
            });
            // A caller that goes away is none of our concern.
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), handle)
                .await;
        }
    })
    .await
}

fn charge(payment: &Payment, number: u64) -> Result<tonic::Response<Receipt>, Status> {
    if payment.refuses_every > 0 && number.is_multiple_of(payment.refuses_every) {
        return Err(Status::unavailable("the bank is busy"));
    }
    Ok(tonic::Response::new(Receipt {
        served_by: payment.name.clone(),
        number,
    }))
}

/// Somebody who charges cards, over one connection.
#[derive(Debug)]
pub(crate) struct Customer {
    address: String,
    channel: Option<Channel>,
}

impl Customer {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            channel: None,
        }
    }

    /// # Errors
    /// Without an answer of gRPC: what happened, in a word.
    pub(crate) async fn charge(&mut self) -> Result<Answer, String> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let endpoint = Channel::from_shared(self.address.clone()).map_err(|_| "address")?;
                let endpoint = endpoint.connect_timeout(DEADLINE).timeout(DEADLINE);
                let channel = endpoint.connect().await.map_err(|_| "connect")?;
                self.channel.insert(channel).clone()
            }
        };
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.map_err(|_| "connection")?;
        let codec = ProstCodec::<Charge, Receipt>::default();
        let request = tonic::Request::new(Charge { cents: 499 });
        let answered = grpc.unary(request, PathAndQuery::from_static(CHARGE), codec);
        Ok(match answered.await {
            Ok(receipt) => Answer {
                status: "OK".to_owned(),
                served_by: Some(receipt.into_inner().served_by),
                ..Answer::default()
            },
            Err(status) => Answer {
                status: name(status.code()).to_owned(),
                proxy_status: status
                    .metadata()
                    .get("proxy-status")
                    .and_then(|it| it.to_str().ok())
                    .map(ToOwned::to_owned),
                body: status.message().to_owned(),
                ..Answer::default()
            },
        })
    }
}

/// Those that the demo can meet.
const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Unavailable => "UNAVAILABLE",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::Cancelled => "CANCELLED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Internal => "INTERNAL",
        Code::Unimplemented => "UNIMPLEMENTED",
        _ => "UNKNOWN",
    }
}
