//! Probes and hooks of the application, handed to the proxy to carry out.
//!
//! The kubelet's own connections have no certificate, so a strict policy would
//! refuse them, and nothing tells them from anybody else's. So each is turned
//! into a GET on the proxy's health port, which redirection leaves alone, and
//! the proxy asks the application from inside the pod. What it is to ask stands
//! in an annotation, with a token that the kubelet has to bring: without it
//! anyone in the network could ask what the policy forbids, or run a hook.
//!
//! `exec` and what names a host of its own is left alone. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Refusal, annotations::PROBES, pod, sidecar::HEALTH_PORT};

/// The annotation's content; `weft-proxy` reads the same.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Probes {
    pub(super) token: String,
    /// By `<container>/<kind>`.
    pub(super) probes: BTreeMap<String, Probe>,
}

/// One handler as the pod had it, with ports by number.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Probe {
    pub(super) timeout_seconds: i64,
    #[serde(flatten)]
    pub(super) handler: BTreeMap<String, Value>,
}

/// The header that carries the token.
const TOKEN_HEADER: &str = "weft-probe";

/// What the annotation says of a pod that was here before.
///
/// # Errors
/// When it says nothing that can be read.
pub(super) fn kept(annotations: &BTreeMap<String, String>) -> Result<Option<Probes>, Refusal> {
    let text = annotations.get(PROBES);
    text.map(|text| serde_json::from_str(text))
        .transpose()
        .map_err(|error| {
            Refusal::new(
                &format!("metadata.annotations[{PROBES:?}]"),
                format!("is written by the mesh, and can't be read: {error}"),
                "remove it, and write the pod's probes as they were before",
            )
        })
}

/// Rewrites the probes of all containers in `spec`; answers what they were.
///
/// # Errors
/// When a probe names a port that its container doesn't have.
pub(super) fn rewrite(
    spec: &mut Value,
    before: Option<Probes>,
    token: &str,
) -> Result<Probes, Refusal> {
    let grace = spec
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(30)
        .max(1);
    let known = before.unwrap_or_else(|| Probes {
        token: token.to_owned(),
        probes: BTreeMap::new(),
    });
    let mut rewriting = Rewriting {
        now: Probes {
            token: known.token.clone(),
            probes: BTreeMap::new(),
        },
        known,
        grace,
    };
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let name = container.get("name").and_then(Value::as_str);
            let name = name.unwrap_or_default().to_owned();
            if !pod::is_ours(&name) {
                let field = format!("spec.{list}[{index}]");
                rewriting.container(&name, container, &field)?;
            }
        }
    }
    Ok(rewriting.now)
}

struct Rewriting {
    known: Probes,
    now: Probes,
    grace: i64,
}

/// After this long a hook of the start is given up.
const POST_START_SECONDS: i64 = 600;

impl Rewriting {
    fn container(&mut self, name: &str, it: &mut Value, field: &str) -> Result<(), Refusal> {
        let ports = ports(it);
        for (key, kind) in [
            ("livenessProbe", "liveness"),
            ("readinessProbe", "readiness"),
            ("startupProbe", "startup"),
        ] {
            if let Some(probe) = it.get_mut(key) {
                let timeout = probe.get("timeoutSeconds").and_then(Value::as_i64);
                let timeout = timeout.unwrap_or(1).max(1);
                let field = format!("{field}.{key}");
                self.handler(format!("{name}/{kind}"), probe, timeout, (&ports, &field))?;
            }
        }
        for (key, kind, timeout) in [
            ("postStart", "post-start", POST_START_SECONDS),
            ("preStop", "pre-stop", self.grace),
        ] {
            if let Some(hook) = it.get_mut("lifecycle").and_then(|it| it.get_mut(key)) {
                // A hook's tcpSocket was never carried out by any kubelet.
                if hook.get("httpGet").is_some() {
                    let field = format!("{field}.lifecycle.{key}");
                    self.handler(format!("{name}/{kind}"), hook, timeout, (&ports, &field))?;
                }
            }
        }
        Ok(())
    }

    fn handler(
        &mut self,
        key: String,
        it: &mut Value,
        timeout_seconds: i64,
        (ports, field): (&BTreeMap<String, i64>, &str),
    ) -> Result<(), Refusal> {
        let path = format!("/probe/{key}");
        if is_rewritten(it, &path) {
            let Some(probe) = self.known.probes.get(&key) else {
                return Err(Refusal::new(
                    field,
                    format!("asks the proxy, and the annotation {PROBES} doesn't say what for"),
                    "write the probe as it was before injection",
                ));
            };
            self.now.probes.insert(key, probe.clone());
            return Ok(());
        }
        let Some(fields) = it.as_object_mut() else {
            return Ok(());
        };
        let handlers = ["httpGet", "tcpSocket", "grpc"];
        let Some(name) = handlers
            .into_iter()
            .find(|it| fields.get(*it).is_some_and(Value::is_object))
        else {
            return Ok(());
        };
        let elsewhere = fields.get(name).and_then(|it| it.get("host"));
        if elsewhere
            .and_then(Value::as_str)
            .is_some_and(|it| !it.is_empty())
        {
            return Ok(());
        }
        let mut original = fields.remove(name).unwrap_or_default();
        original["port"] = json!(port(&original, ports, &format!("{field}.{name}.port"))?);
        fields.insert(
            "httpGet".to_owned(),
            json!({
                "path": path,
                "port": HEALTH_PORT,
                "scheme": "HTTP",
                "httpHeaders": [{"name": TOKEN_HEADER, "value": self.now.token}],
            }),
        );
        let handler = BTreeMap::from([(name.to_owned(), original)]);
        let probe = Probe {
            timeout_seconds,
            handler,
        };
        self.now.probes.insert(key, probe);
        Ok(())
    }
}

fn is_rewritten(handler: &Value, path: &str) -> bool {
    handler.get("httpGet").is_some_and(|it| {
        it.get("port").and_then(Value::as_u64) == Some(HEALTH_PORT.into())
            && it.get("path").and_then(Value::as_str) == Some(path)
    })
}

/// Of the container itself, as the kubelet resolves them.
fn ports(container: &Value) -> BTreeMap<String, i64> {
    let ports = container.get("ports").and_then(Value::as_array);
    let named = ports.into_iter().flatten().filter_map(|it| {
        let name = it.get("name")?.as_str()?.to_owned();
        Some((name, it.get("containerPort")?.as_i64()?))
    });
    named.collect()
}

fn port(handler: &Value, ports: &BTreeMap<String, i64>, field: &str) -> Result<i64, Refusal> {
    let said = handler.get("port").unwrap_or(&Value::Null);
    let number = match said {
        Value::String(name) => match ports.get(name) {
            Some(number) => Some(*number),
            // Legal, if unusual: a number in quotes.
            None => name.parse().ok(),
        },
        said => said.as_i64(),
    };
    match number {
        Some(number) if (1..=65_535).contains(&number) => Ok(number),
        _ => Err(Refusal::new(
            field,
            format!("is {said}, which is no port of this container"),
            "name one of the container's ports, or write a number from 1 to 65535",
        )),
    }
}
