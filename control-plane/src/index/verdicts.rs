//! What the mesh answers to a route or a policy: its conditions.
//!
//! Asked by `Index` for the objects that a change touches, beside `problems`,
//! which tells the same to people without a cluster. Reasons are the
//! specification's (RouteConditionReason; GEP-713 for policies).
//!
//! Pure: reads tables, returns values. How many proxies follow is not known
//! here.

use super::{endpoints, routes, services, tables::Tables};
use crate::model::{
    AccessPolicy, AccessTarget, BackendPolicyObject, Condition, ConditionKind, Entry, Key, Kind,
    Name, Parent, Reason, Reference, Refused, Route, Service, Verdict,
};

/// `None`: the object is gone, or of a kind that isn't answered.
pub(super) fn of(tables: &Tables, key: &Key) -> Option<Verdict> {
    match key.kind {
        Kind::HttpRoute | Kind::GrpcRoute => of_route(tables, tables.routes.get(key)?),
        Kind::BackendPolicy => Some(of_backend_policy(
            tables,
            tables.backend_policies.get(&key.name)?,
        )),
        Kind::AccessPolicy => Some(of_access_policy(
            tables,
            tables.access_policies.get(&key.name)?,
        )),
        _ => None,
    }
}

/// An entry for each parent that is a Service; without one, the route is
/// nobody's here and no word is said (RouteStatus.parents).
fn of_route(tables: &Tables, route: &Route) -> Option<Verdict> {
    let resolved = resolved_refs(tables, route);
    let entries: Vec<Entry> = route
        .parents
        .iter()
        .map(|parent| {
            let accepted = accepted(tables, route, parent);
            let partly = accepted.holds.then(|| partially_invalid(route)).flatten();
            let mut conditions = vec![accepted, resolved.clone()];
            conditions.extend(partly);
            Entry {
                reference: parent.reference.clone(),
                conditions,
            }
        })
        .collect();
    (!entries.is_empty()).then(|| Verdict {
        uid: route.uid.clone(),
        generation: route.generation,
        entries,
    })
}

fn accepted(tables: &Tables, route: &Route, parent: &Parent) -> Condition {
    let (holds, reason, message) = match attachment(tables, route, parent) {
        Ok(message) => (true, Reason::Accepted, message),
        Err((reason, message)) => (false, reason, message),
    };
    Condition {
        kind: ConditionKind::Accepted,
        holds,
        reason,
        message,
    }
}

/// What it holds for, or why it doesn't.
fn attachment(tables: &Tables, route: &Route, parent: &Parent) -> Result<String, (Reason, String)> {
    if let Some(refused) = route.refused.as_ref().or(parent.refused.as_ref()) {
        return Err((refused.reason, told(refused)));
    }
    let name = &parent.service;
    let nothing = |message| Err((Reason::NoMatchingParent, message));
    let Some(service) = tables.services.get(name) else {
        return nothing(format!("there is no Service {name}"));
    };
    if !routes::takes_routes(service) {
        return nothing(format!(
            "Service {name} has no ClusterIP, and routes match on it"
        ));
    }
    let ports: Vec<u16> = match parent.port {
        Some(port) if service.ports.iter().all(|it| it.port != port) => {
            return nothing(format!("Service {name} has no port {port}"));
        }
        Some(port) => vec![port],
        None => service.ports.iter().map(|it| it.port).collect(),
    };
    if let Some(refused) = refused_whole(route) {
        let what = told(refused);
        return Err((
            refused.reason,
            format!("no rule can be carried out: {what}"),
        ));
    }
    held(tables, route, service, &ports)
}

fn held(
    tables: &Tables,
    route: &Route,
    service: &Service,
    ports: &[u16],
) -> Result<String, (Reason, String)> {
    let lost: Vec<(u16, Key)> = ports
        .iter()
        .filter_map(|port| {
            let winner = routes::lost_to(tables, route, service, *port)?;
            Some((*port, winner.key()))
        })
        .collect();
    let Some((port, winner)) = lost.first() else {
        return Ok(format!("attached to Service {}", service.name));
    };
    let message = format!("{winner} holds port {port} of Service {}", service.name);
    match lost.len() == ports.len() {
        true => Err((Reason::Conflicted, message)),
        false => Ok(format!("attached, but not everywhere: {message}")),
    }
}

/// Its first refusal, where not one rule is left.
fn refused_whole(route: &Route) -> Option<&Refused> {
    let all = route.rules.iter().all(|it| it.refused.is_some());
    route.rules.first()?.refused.as_ref().filter(|_| all)
}

/// RouteConditionPartiallyInvalid: only ever true, and its message begins so.
fn partially_invalid(route: &Route) -> Option<Condition> {
    let mut refused = route.rules.iter().filter_map(|it| it.refused.as_ref());
    let first = refused.next()?;
    Some(Condition {
        kind: ConditionKind::PartiallyInvalid,
        holds: true,
        reason: Reason::UnsupportedValue,
        message: format!("Dropped Rule: {}{}", told(first), more(refused.count())),
    })
}

fn resolved_refs(tables: &Tables, route: &Route) -> Condition {
    let broken = routes::broken_references(tables, route);
    let (holds, reason, message) = match broken.first() {
        None => (
            true,
            Reason::ResolvedRefs,
            "every backend exists".to_owned(),
        ),
        Some((field, _, why)) => {
            let more = more(broken.len() - 1);
            (false, why.reason, format!("{field}: {}{more}", why.message))
        }
    };
    Condition {
        kind: ConditionKind::ResolvedRefs,
        holds,
        reason,
        message,
    }
}

fn told(refused: &Refused) -> String {
    let Refused {
        field,
        message,
        remedy,
        ..
    } = refused;
    format!("{field} {message}: {remedy}")
}

fn more(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(", and {count} more"),
    }
}

/// PolicyStatus.ancestors: no further entries beyond these.
const MOST_ANCESTORS: usize = 16;

fn of_backend_policy(tables: &Tables, policy: &BackendPolicyObject) -> Verdict {
    let entries = policy.targets.iter().take(MOST_ANCESTORS).map(|target| {
        let target = Name::new(&policy.name.namespace, target);
        let winner = services::policy_of(tables, &target).filter(|it| it.name != policy.name);
        let (holds, reason, message) = match (tables.services.contains_key(&target), winner) {
            (false, _) => {
                let message = format!("there is no Service {target}");
                (false, Reason::TargetNotFound, message)
            }
            (true, Some(winner)) => {
                let message = format!("the older BackendPolicy {} holds for it", winner.name);
                (false, Reason::Conflicted, message)
            }
            (true, None) => (
                true,
                Reason::Accepted,
                format!("holds for Service {target}"),
            ),
        };
        ancestor("Service", &target, holds, reason, message)
    });
    Verdict {
        uid: policy.uid.clone(),
        generation: policy.generation,
        entries: entries.collect(),
    }
}

/// Its ancestor is its namespace, where whom it targets lives. Selecting nobody
/// is no fault: pods come and go.
fn of_access_policy(tables: &Tables, policy: &AccessPolicy) -> Verdict {
    let namespace = &policy.name.namespace;
    let pods = tables.pods_targeted(policy);
    let meshed = |pod: &&&Name| {
        let pod = tables.pods.get(*pod);
        pod.is_some_and(|pod| endpoints::is_meshed(tables, pod))
    };
    let message = match (pods.is_empty(), pods.iter().any(|it| meshed(&it))) {
        (true, _) => "selects no pod now".to_owned(),
        (false, false) => "none of the pods that it selects has a proxy to enforce it".to_owned(),
        (false, true) => "holds for the pods that it selects".to_owned(),
    };
    let message = match policy.targets.contains(&AccessTarget::Namespace) {
        true => format!("holds for namespace {namespace}"),
        false => message,
    };
    let target = Name::new("", namespace);
    Verdict {
        uid: policy.uid.clone(),
        generation: policy.generation,
        entries: vec![ancestor(
            "Namespace",
            &target,
            true,
            Reason::Accepted,
            message,
        )],
    }
}

fn ancestor(kind: &str, target: &Name, holds: bool, reason: Reason, message: String) -> Entry {
    let namespace = Some(target.namespace.clone()).filter(|it| !it.is_empty());
    Entry {
        reference: Reference {
            group: Some(String::new()),
            kind: Some(kind.to_owned()),
            namespace,
            name: target.name.clone(),
            ..Reference::default()
        },
        conditions: vec![Condition {
            kind: ConditionKind::Accepted,
            holds,
            reason,
            message,
        }],
    }
}
