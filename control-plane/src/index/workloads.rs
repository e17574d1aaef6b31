//! What a pod admits: its ports and who may call them.
//!
//! Read by `serve` through `Index::workload`. Policies add up: every deny rule
//! of every policy that is about the pod, every allow rule, strict if any says
//! so. With an allow rule what none allows is denied.
//!
//! Pure: reads tables, returns values.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    endpoints,
    tables::{Tables, is_selected},
};
use crate::model::{AccessPolicy, AccessTarget, Name, Pod, ResolvedAccess, ResolvedWorkload};

pub(super) fn resolve(tables: &Tables, name: &Name) -> Option<ResolvedWorkload> {
    let pod = tables.pods.get(name)?;
    let policies: Vec<&AccessPolicy> = tables
        .access_policies_by_namespace
        .of(&name.namespace)
        .filter_map(|it| tables.access_policies.get(it))
        .filter(|policy| is_about(policy, pod))
        .collect();
    let declared = endpoints::declared_ports(tables, pod);
    let mut numbers: BTreeSet<u16> = declared.keys().copied().collect();
    numbers.extend(pod.ports.values());
    numbers.extend(policies.iter().flat_map(|policy| &policy.ports));
    let ports: BTreeMap<_, _> = numbers
        .into_iter()
        .map(|port| {
            let protocol = declared.get(&port).copied().unwrap_or_default();
            (port, (protocol, access(&policies, Some(port))))
        })
        .collect();
    Some(ResolvedWorkload {
        pod: Pod {
            zone: tables.zone_of(pod).to_owned(),
            ..pod.clone()
        },
        meshed: endpoints::is_meshed(tables, pod),
        ports,
        default_access: access(&policies, None),
    })
}

fn is_about(policy: &AccessPolicy, pod: &Pod) -> bool {
    policy.name.namespace == pod.name.namespace
        && policy.targets.iter().any(|target| match target {
            AccessTarget::Namespace => true,
            AccessTarget::Selected(labels) => is_selected(labels, &pod.labels),
        })
}

/// Of a port; `None` for those that nothing names.
fn access(policies: &[&AccessPolicy], port: Option<u16>) -> ResolvedAccess {
    let mut access = ResolvedAccess::default();
    for policy in policies {
        let holds = policy.ports.is_empty() || port.is_some_and(|it| policy.ports.contains(&it));
        if !holds {
            continue;
        }
        access.strict |= policy.strict == Some(true);
        for (index, rule) in policy.rules.iter().enumerate() {
            let rule = (format!("{}#{index}", policy.name), rule.clone());
            match rule.1.deny {
                true => access.deny.push(rule),
                false => access.allow.push(rule),
            }
        }
    }
    access.default_deny = !access.allow.is_empty();
    access
}
