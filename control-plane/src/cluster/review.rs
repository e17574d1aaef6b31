//! Whose token it is, asked of the API server, and whether that pod still runs.
//!
//! Behind `serve::identity`'s trait. A TokenReview says yes for pods that have
//! finished and for some that have just been deleted, so its word alone is not
//! enough: the pod's UID, account, phase and deletion are judged too. No answer
//! is kept: a yes is good for one certificate. Whoever reaches the port can ask,
//! so what can't be a token (`shape`) never reaches the API server, and the rest
//! a few at a time (`turns`).

use std::{net::IpAddr, time::Duration};

use k8s_openapi::{
    api::{
        authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::time::timeout;

use crate::{
    clock::Wall,
    cluster::{Cluster, Failure, call},
    identity::is_part,
    model::Name,
    serve::identity::{Asking, Bearer, Confirmed, Tokens, Unverified},
};

const AUDIENCE: &str = "weft";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// For one's turn; a proxy asks again.
const TURN: Duration = Duration::from_secs(3);

mod shape;
mod turns;

use turns::{Turn, Turns};

pub(crate) struct Reviews {
    cluster: Cluster,
    clock: Wall,
    turns: Turns,
}

impl Reviews {
    pub(crate) fn new(cluster: Cluster, clock: Wall) -> Self {
        Self {
            cluster,
            clock,
            turns: Turns::new(),
        }
    }

    async fn turn(&self, from: Option<IpAddr>) -> Result<Turn<'_>, Unverified> {
        match timeout(TURN, self.turns.take(from)).await {
            Ok(Some(turn)) => Ok(turn),
            Ok(None) | Err(_) => {
                let busy = "too many tokens are being reviewed: ask again".to_owned();
                Err(Unverified::Unavailable(busy))
            }
        }
    }
}

impl Tokens for Reviews {
    fn verify<'a>(&'a self, token: &'a str, from: Option<IpAddr>) -> Asking<'a, Bearer> {
        Box::pin(async move {
            shape::check(token, self.clock.seconds())
                .map_err(|why| Unverified::Refused(format!("token refused: {why}")))?;
            let _turn = self.turn(from).await?;
            let review = TokenReview {
                spec: TokenReviewSpec {
                    audiences: Some(vec![AUDIENCE.to_owned()]),
                    token: token.to_owned(),
                },
                ..TokenReview::default()
            };
            let reviews: Api<TokenReview> = Api::all(self.cluster.client.clone());
            let parameters = PostParams::default();
            let answer = call(reviews.create(&parameters, &review)).await;
            let answer = answer.map_err(|error| unavailable("TokenReview", &error))?;
            judge(&answer.status.unwrap_or_default()).map_err(Unverified::Refused)
        })
    }

    fn confirm<'a>(&'a self, bearer: &'a Bearer, from: Option<IpAddr>) -> Asking<'a, Confirmed> {
        Box::pin(async move {
            let client = self.cluster.client.clone();
            let pods: Api<Pod> = Api::namespaced(client, &bearer.pod.namespace);
            let _turn = self.turn(from).await?;
            let pod = call(pods.get_opt(&bearer.pod.name)).await;
            let pod = pod.map_err(|error| unavailable("reading the pod", &error))?;
            Ok(judge_pod(pod.as_ref(), bearer, self.clock))
        })
    }
}

fn unavailable(what: &str, error: &Failure) -> Unverified {
    Unverified::Unavailable(format!("{what}: {error}"))
}

/// Whom the API server names.
fn judge(status: &TokenReviewStatus) -> Result<Bearer, String> {
    if status.authenticated != Some(true) {
        let why = status.error.as_deref().unwrap_or("it is of nobody");
        return Err(format!("token refused: {why}"));
    }
    // An API server that does not know audiences answers yes to any.
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|it| it == AUDIENCE) {
        return Err(format!("token refused: not for audience {AUDIENCE}"));
    }
    let user = status.user.clone().unwrap_or_default();
    let account = user
        .username
        .as_deref()
        .and_then(|it| it.strip_prefix("system:serviceaccount:"))
        .and_then(|it| it.split_once(':'));
    let Some((namespace, account)) = account else {
        return Err("token refused: not of a service account".to_owned());
    };
    let (Some(pod), Some(uid)) = (single(&user, POD_NAME), single(&user, POD_UID)) else {
        return Err("token refused: bound to no pod".to_owned());
    };
    if uid.is_empty() || ![namespace, account, pod].into_iter().all(is_part) {
        return Err("token refused: a name in it is none".to_owned());
    }
    Ok(Bearer {
        pod: Name::new(namespace, pod),
        uid: uid.to_owned(),
        service_account: account.to_owned(),
    })
}

fn single<'a>(user: &'a UserInfo, key: &str) -> Option<&'a str> {
    match user.extra.as_ref()?.get(key)?.as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

/// Whether this is the bearer's pod, and it has not ended.
fn judge_pod(pod: Option<&Pod>, bearer: &Bearer, clock: Wall) -> Confirmed {
    let ended = |why: &str| Confirmed::DoesNotRun(format!("pod {}: {why}", bearer.pod));
    let Some(pod) = pod else {
        return ended("there is none of this name");
    };
    if pod.metadata.uid.as_deref() != Some(bearer.uid.as_str()) {
        return ended("it was replaced: another UID");
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    if account != bearer.service_account {
        return ended("it runs as another service account");
    }
    let status = pod.status.clone().unwrap_or_default();
    if let Some(phase @ ("Succeeded" | "Failed")) = status.phase.as_deref() {
        return ended(&format!("it has ended ({phase})"));
    }
    // The timestamp is the end of its grace, in which it may still need a certificate.
    let now = i64::try_from(clock.seconds()).unwrap_or(i64::MAX);
    let deleted = pod.metadata.deletion_timestamp.as_ref().map(|it| &it.0);
    if deleted.is_some_and(|end: &Timestamp| end.as_second() < now) {
        return ended("its grace period is over");
    }
    Confirmed::Runs
}

#[cfg(test)]
mod tests;
