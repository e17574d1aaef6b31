//! AccessPolicy (weft.dev/v1alpha1): who may call a workload.
//!
//! The types are the reference of the kind. An empty list would read as
//! "nobody" and hold as "anybody", so it is refused: what doesn't matter is
//! left out.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Refusal, check};
use crate::model::{self, AccessTarget};

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AccessPolicy {
    #[allow(dead_code, reason = "checked before the type is known")]
    api_version: String,
    #[allow(dead_code, reason = "checked before the type is known")]
    kind: String,
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: AccessPolicySpec,
    /// Written by the mesh; of no meaning in a file.
    #[allow(dead_code, reason = "accepted so that a copied object is a manifest")]
    #[serde(default)]
    status: serde_json::Value,
}

/// Who may call the workloads that it is for: deny rules decide first. As soon
/// as any policy allows something on a port, what none allows is denied.
/// Policies for one workload add up.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.targetRefs) != has(self.selector)", "message": "say whom it is for: write either targetRefs with the policy's own Namespace, or a selector"},
    {"rule": "has(self.mtls) || has(self.rules)", "message": "it says nothing: write mtls or rules"},
]))]
pub(crate) struct AccessPolicySpec {
    /// Its own namespace: all workloads in it. This or `selector`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 16))]
    pub(crate) target_refs: Option<Vec<NamespaceTarget>>,
    /// Workloads of its own namespace by their labels. This or `targetRefs`.
    #[serde(default)]
    pub(crate) selector: Option<Selector>,
    /// The workloads' own ports, 1 to 65535. Default: every port.
    #[serde(default)]
    #[schemars(length(min = 1, max = 64))]
    #[schemars(inner(range(min = 1, max = 65535)))]
    pub(crate) ports: Option<Vec<i64>>,
    /// Default: as other policies for the workload say, `Permissive` if none does.
    #[serde(default)]
    pub(crate) mtls: Option<Mtls>,
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub(crate) rules: Option<Vec<Rule>>,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.kind == 'Namespace'", "message": "an AccessPolicy is for a Namespace: write kind: Namespace, or use selector"},
    {"rule": "!has(self.group) || self.group == ''", "message": "a Namespace is of the core group: leave group out"},
]))]
pub(crate) struct NamespaceTarget {
    /// `""`, the core group.
    #[serde(default)]
    pub(crate) group: String,
    /// `Namespace`.
    pub(crate) kind: String,
    /// The policy's own namespace.
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Selector {
    /// All of them.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) match_labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Debug, Deserialize, JsonSchema)]
pub(crate) enum Mtls {
    /// Only callers that the mesh has authenticated.
    Strict,
    /// Others too, as far as the rules allow; they are counted.
    Permissive,
}

/// All of its conditions; within one list, any entry.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) action: Action,
    /// Who calls. Default: anybody.
    #[serde(default)]
    pub(crate) from: Option<From>,
    /// What is called. Default: anything. With a rule that has it, the port
    /// carries HTTP alone.
    #[serde(default)]
    pub(crate) to: Option<To>,
}

#[derive(Clone, Copy, PartialEq, Debug, Deserialize, JsonSchema)]
pub(crate) enum Action {
    Allow,
    Deny,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.identities) || has(self.namespaces)", "message": "from is empty: write identities or namespaces, or leave it out for anybody"},
]))]
pub(crate) struct From {
    /// SPIFFE IDs, whole: `spiffe://cluster.local/ns/shop/sa/web`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    #[schemars(inner(regex(pattern = r"^spiffe://[^/]+/ns/[^/]+/sa/[^/]+$")))]
    pub(crate) identities: Option<Vec<String>>,
    /// Of the caller.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    #[schemars(inner(regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")))]
    pub(crate) namespaces: Option<Vec<String>>,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.methods) || has(self.pathPrefixes)", "message": "to is empty: write methods or pathPrefixes, or leave it out for anything"},
]))]
pub(crate) struct To {
    /// Of HTTP, as on the wire: `GET`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 64))]
    #[schemars(inner(regex(pattern = r"^[-!#$%&'*+.^_`|~0-9A-Z]+$")))]
    pub(crate) methods: Option<Vec<String>>,
    /// By segments: `/a` is `/a` and `/a/b`, not `/ab`. In canonical form.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    #[schemars(inner(length(max = 1024), regex(pattern = "^/")))]
    pub(crate) path_prefixes: Option<Vec<String>>,
}

/// # Errors
/// What the policy says that can't be.
pub(crate) fn convert(it: &AccessPolicy) -> Result<model::AccessPolicy, Refusal> {
    let name = check::name(&it.metadata)?;
    let spec = &it.spec;
    let targets = targets(&name.namespace, spec)?;
    if spec.mtls.is_none() && spec.rules.as_ref().is_none_or(Vec::is_empty) {
        return Err(Refusal::new("spec", "says nothing", "write mtls or rules"));
    }
    let mut ports = BTreeSet::new();
    for (index, port) in listed("spec.ports", spec.ports.as_deref())?
        .iter()
        .enumerate()
    {
        ports.insert(check::port(&format!("spec.ports[{index}]"), *port)?);
    }
    let mut rules = Vec::new();
    for (index, rule) in spec.rules.iter().flatten().enumerate() {
        let field = format!("spec.rules[{index}]");
        rules.push(convert_rule(rule).map_err(|refusal| refusal.below(&field))?);
    }
    Ok(model::AccessPolicy {
        name,
        uid: check::uid(&it.metadata),
        generation: check::generation(&it.metadata),
        targets,
        ports,
        strict: spec.mtls.map(|mtls| mtls == Mtls::Strict),
        rules,
    })
}

fn targets(namespace: &str, spec: &AccessPolicySpec) -> Result<Vec<AccessTarget>, Refusal> {
    match (&spec.target_refs, &spec.selector) {
        (Some(refs), None) => {
            for (index, target) in listed("spec.targetRefs", Some(refs))?.iter().enumerate() {
                let field = format!("spec.targetRefs[{index}]");
                if !target.group.is_empty() {
                    let is = check::quoted(&target.group);
                    return Err(Refusal::value(&format!("{field}.group"), is, r#""""#));
                }
                if target.kind != "Namespace" {
                    let is = check::quoted(&target.kind);
                    return Err(Refusal::value(
                        &format!("{field}.kind"),
                        is,
                        "Namespace, or use selector",
                    ));
                }
                if target.name != namespace {
                    let expected = format!("{namespace}, the policy's own namespace");
                    return Err(Refusal::value(
                        &format!("{field}.name"),
                        check::quoted(&target.name),
                        &expected,
                    ));
                }
            }
            Ok(vec![AccessTarget::Namespace])
        }
        (None, Some(selector)) if selector.match_labels.is_empty() => Err(Refusal::new(
            "spec.selector.matchLabels",
            "is empty",
            "name a label, or target the Namespace in targetRefs",
        )),
        (None, Some(selector)) => Ok(vec![AccessTarget::Selected(selector.match_labels.clone())]),
        (None, None) => Err(Refusal::new(
            "spec",
            "says not whom it is for",
            "write targetRefs with a Namespace, or a selector",
        )),
        (Some(_), Some(_)) => Err(Refusal::new(
            "spec.selector",
            "stands beside targetRefs",
            "write one of the two",
        )),
    }
}

fn convert_rule(it: &Rule) -> Result<model::AccessRule, Refusal> {
    let mut rule = model::AccessRule {
        deny: it.action == Action::Deny,
        ..model::AccessRule::default()
    };
    if let Some(from) = &it.from {
        if from.identities.is_none() && from.namespaces.is_none() {
            return Err(Refusal::new(
                "from",
                "is empty",
                "write identities or namespaces, or leave it out",
            ));
        }
        rule.identities = listed("from.identities", from.identities.as_deref())?.to_vec();
        rule.namespaces = listed("from.namespaces", from.namespaces.as_deref())?.to_vec();
        for (index, identity) in rule.identities.iter().enumerate() {
            check_identity(&format!("from.identities[{index}]"), identity)?;
        }
        for (index, namespace) in rule.namespaces.iter().enumerate() {
            check::label(&format!("from.namespaces[{index}]"), namespace)?;
        }
    }
    if let Some(to) = &it.to {
        if to.methods.is_none() && to.path_prefixes.is_none() {
            return Err(Refusal::new(
                "to",
                "is empty",
                "write methods or pathPrefixes, or leave it out",
            ));
        }
        rule.methods = listed("to.methods", to.methods.as_deref())?.to_vec();
        rule.path_prefixes = listed("to.pathPrefixes", to.path_prefixes.as_deref())?.to_vec();
        for (index, method) in rule.methods.iter().enumerate() {
            // Methods are case-sensitive (RFC 9110 §9.1): "get" is never GET.
            if !check::is_token(method) || method.bytes().any(|it| it.is_ascii_lowercase()) {
                let field = format!("to.methods[{index}]");
                return Err(Refusal::value(
                    &field,
                    check::quoted(method),
                    "a method, like GET",
                ));
            }
        }
        for (index, path) in rule.path_prefixes.iter().enumerate() {
            check::path(&format!("to.pathPrefixes[{index}]"), path)?;
        }
    }
    Ok(rule)
}

/// `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
fn check_identity(field: &str, text: &str) -> Result<(), Refusal> {
    let mut parts = text
        .strip_prefix("spiffe://")
        .unwrap_or_default()
        .split('/');
    let mut next = || parts.next().unwrap_or_default();
    let (domain, ns, namespace, sa, account) = (next(), next(), next(), next(), next());
    let fits = ns == "ns"
        && sa == "sa"
        && check::subdomain(field, domain).is_ok()
        && check::label(field, namespace).is_ok()
        && check::subdomain(field, account).is_ok()
        && parts.next().is_none();
    let expected = "spiffe://<trust domain>/ns/<namespace>/sa/<service account>";
    fits.then_some(())
        .ok_or_else(|| Refusal::value(field, check::quoted(text), expected))
}

/// Left out, or with entries.
fn listed<'a, T>(field: &str, said: Option<&'a [T]>) -> Result<&'a [T], Refusal> {
    match said {
        Some([]) => Err(Refusal::new(
            field,
            "is empty",
            "leave it out, or name something",
        )),
        said => Ok(said.unwrap_or_default()),
    }
}
