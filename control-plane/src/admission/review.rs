//! One question of the API server and its answer (admission.k8s.io/v1).
//!
//! Called by `server` with a body; `inject` and the manifests' own parsers
//! decide. What can't be decided is denied with the reason: the API server is
//! told to fail closed, and this does the same.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::aws_lc_rs;

use super::{Namespace, Refusal, Settings, inject, metrics::Verdict, patch, refusals};
use crate::sources::manifest;

pub(crate) type Knowing = Pin<Box<dyn Future<Output = Namespace> + Send>>;

/// What the answers are made of. `app` fills it.
#[derive(Clone)]
pub(crate) struct Webhook {
    /// `None` while there is no root that a pod could begin with.
    pub(crate) settings: Arc<dyn Fn() -> Option<Settings> + Send + Sync>,
    /// By the namespace's name.
    pub(crate) namespace: Arc<dyn Fn(&str) -> Knowing + Send + Sync>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
struct Review {
    request: Request,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    object: Value,
    /// Of an update.
    #[serde(default)]
    old_object: Value,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    Inject,
    Validate,
}

/// What the answer says, beside the question's UID.
#[derive(Debug)]
struct Answer {
    verdict: Verdict,
    /// HTTP status of a denial, as clients show it.
    denied: Option<(u16, String)>,
    patch: Vec<Value>,
    warnings: Vec<String>,
}

impl Answer {
    const fn allowed(verdict: Verdict) -> Self {
        Self {
            verdict,
            denied: None,
            patch: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn denied(verdict: Verdict, code: u16, why: impl fmt::Display) -> Self {
        Self {
            denied: Some((code, format!("weft: {why}"))),
            ..Self::allowed(verdict)
        }
    }

    fn refused(refusal: &Refusal) -> Self {
        // 422, as for any other invalid object.
        Self::denied(Verdict::Refused, 422, refusal)
    }
}

/// # Errors
/// When the body is no review: there is nobody to answer then.
pub(super) async fn answer(
    webhook: &Webhook,
    path: Path,
    body: &[u8],
) -> Result<(Verdict, Value), String> {
    let review: Review = serde_json::from_slice(body)
        .map_err(|error| format!("no AdmissionReview of admission.k8s.io/v1: {error}"))?;
    let Request {
        uid,
        namespace,
        mut object,
        old_object,
    } = review.request;
    let answer = match path {
        // There is nothing to say against a deletion.
        _ if object.is_null() => Answer::allowed(Verdict::Left),
        Path::Validate => validate(&object, &old_object),
        Path::Inject => {
            // A pod of a template doesn't say it itself.
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata
                    .entry("namespace")
                    .or_insert_with(|| json!(namespace));
            }
            injected(webhook, &namespace, &object).await
        }
    };
    Ok((answer.verdict, written(&uid, &answer)))
}

async fn injected(webhook: &Webhook, namespace: &str, object: &Value) -> Answer {
    let Some(settings) = (webhook.settings)() else {
        let why = "the control plane has no root certificate yet: the pod can't prove who it is; try again in a moment";
        return Answer::denied(Verdict::Failed, 503, why);
    };
    let Some(token) = token() else {
        return Answer::denied(Verdict::Failed, 500, "the system gives no random numbers");
    };
    let namespace = (webhook.namespace)(namespace).await;
    match inject::inject(object, &namespace, &settings, &token) {
        Ok(inject::Verdict::Injected { pod, warnings }) => Answer {
            patch: patch::between(object, &pod),
            warnings,
            ..Answer::allowed(Verdict::Injected)
        },
        Ok(inject::Verdict::Left(why)) => {
            tracing::debug!(why = why.as_str(), "a pod stays without a proxy");
            Answer::allowed(Verdict::Left)
        }
        Err(refusal) => {
            tracing::info!(%refusal, "a pod was refused");
            Answer::refused(&refusal)
        }
    }
}

fn validate(object: &Value, before: &Value) -> Answer {
    if object.get("kind").and_then(Value::as_str) == Some("Pod") {
        return match refusals::relabelled(object, before) {
            Ok(()) => Answer::allowed(Verdict::Left),
            Err(refusal) => Answer::refused(&refusal),
        };
    }
    match manifest::check_policy(object) {
        Ok(true) => Answer::allowed(Verdict::Valid),
        Ok(false) => Answer::allowed(Verdict::Left),
        Err(refusal) => Answer::refused(&refusal),
    }
}

fn written(uid: &str, answer: &Answer) -> Value {
    let mut response = json!({"uid": uid, "allowed": answer.denied.is_none()});
    if let Some((code, message)) = &answer.denied {
        response["status"] = json!({"code": code, "message": message});
    }
    if !answer.patch.is_empty() {
        let patch = Value::from(answer.patch.clone()).to_string();
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(patch));
    }
    if !answer.warnings.is_empty() {
        response["warnings"] = json!(answer.warnings);
    }
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": response,
    })
}

/// 128 random bits.
pub(crate) fn token() -> Option<String> {
    let mut bytes = [0; 16];
    let random = aws_lc_rs::default_provider().secure_random;
    random.fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|it| format!("{it:02x}")).collect())
}

#[cfg(test)]
mod tests;
