//! What can't hold of an object, given all the others.
//!
//! Asked by `Index` for the objects that a change touches, read by `status`.
//! An object with problems still counts as far as it can.
//!
//! Pure: reads tables, returns values.

use std::net::IpAddr;

use super::{endpoints, routes, services, tables::Tables};
use crate::model::{AccessTarget, Key, Kind, Name, Parent, Problem, Refused, Route, Service};

pub(super) fn of(tables: &Tables, key: &Key) -> Vec<Problem> {
    let mut found = Found {
        object: key,
        problems: Vec::new(),
    };
    let name = &key.name;
    match key.kind {
        Kind::Namespace | Kind::Node | Kind::ServiceRange => {}
        Kind::Service => of_service(tables, name, &mut found),
        Kind::EndpointSlice => of_slice(tables, name, &mut found),
        Kind::Pod => of_pod(tables, name, &mut found),
        Kind::HttpRoute | Kind::GrpcRoute => of_route(tables, key, &mut found),
        Kind::BackendPolicy => of_backend_policy(tables, name, &mut found),
        Kind::AccessPolicy => of_access_policy(tables, name, &mut found),
    }
    found.problems
}

struct Found<'a> {
    object: &'a Key,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, field: String, message: String, remedy: &str) {
        self.problems.push(Problem {
            object: self.object.clone(),
            field,
            message,
            remedy: remedy.to_owned(),
        });
    }

    fn refused(&mut self, it: &Refused) {
        self.add(it.field.clone(), it.message.clone(), &it.remedy);
    }
}

fn of_service(tables: &Tables, name: &Name, found: &mut Found<'_>) {
    let Some(service) = tables.services.get(name) else {
        return;
    };
    for ip in &service.addresses {
        if let Some(owner) = tables.service_of(*ip).filter(|owner| owner.name != *name) {
            found.add(
                "spec.clusterIPs".to_owned(),
                format!("{ip} is Service {}'s", owner.name),
                "give one of them another address",
            );
        }
        outside_ranges(tables, *ip, "spec.clusterIPs", found);
    }
}

fn of_pod(tables: &Tables, name: &Name, found: &mut Found<'_>) {
    let Some(pod) = tables.pods.get(name) else {
        return;
    };
    // A pod that goes may have lost its address to the next.
    if pod.terminating {
        return;
    }
    for ip in super::tables::owned_addresses(pod) {
        let pod_owner = tables.pod_of(ip).filter(|owner| owner.name != *name);
        let owner = match (tables.service_of(ip), pod_owner) {
            (Some(service), _) => format!("Service {}", service.name),
            (None, Some(other)) => format!("Pod {}", other.name),
            (None, None) => {
                outside_ranges(tables, ip, "status.podIPs", found);
                continue;
            }
        };
        found.add(
            "status.podIPs".to_owned(),
            format!("{ip} is {owner}'s"),
            "give one of them another address",
        );
    }
}

fn outside_ranges(tables: &Tables, ip: IpAddr, field: &str, found: &mut Found<'_>) {
    if tables.ranges.leaves_out(ip) {
        found.add(
            field.to_owned(),
            format!("{ip} is in none of the mesh's configured ranges"),
            "configure a range that holds it; until then it counts as a range of its own",
        );
    }
}

fn of_slice(tables: &Tables, name: &Name, found: &mut Found<'_>) {
    let Some(slice) = tables.slices.get(name) else {
        return;
    };
    if !tables.services.contains_key(&slice.service()) {
        found.add(
            r#"metadata.labels["kubernetes.io/service-name"]"#.to_owned(),
            format!("there is no Service {}", slice.service()),
            "create the Service, or name another",
        );
    }
    for (index, entry) in slice.slice.endpoints.iter().enumerate() {
        let Some(pod) = &entry.pod else { continue };
        let pod = Name::new(&name.namespace, pod);
        let field = || format!("endpoints[{index}].targetRef.name");
        match tables.pods.get(&pod) {
            None => found.add(
                field(),
                format!("there is no Pod {pod}: it gets no traffic"),
                "create the Pod, or drop the targetRef if nothing of the mesh is behind the address",
            ),
            Some(pod) if endpoints::address_listed(tables, entry, pod).is_none() => found.add(
                field(),
                format!("Pod {} has none of these addresses: it gets no traffic", pod.name),
                "list an address of the pod",
            ),
            Some(_) => {}
        }
    }
}

fn of_route(tables: &Tables, key: &Key, found: &mut Found<'_>) {
    let Some(route) = tables.routes.get(key) else {
        return;
    };
    for refused in route.refusals() {
        found.refused(refused);
    }
    for parent in route.parents.iter().filter(|it| it.refused.is_none()) {
        let field = format!("spec.parentRefs[{}]", parent.position);
        match tables.services.get(&parent.service) {
            None => found.add(
                field,
                format!("there is no Service {}", parent.service),
                "create the Service, or name another",
            ),
            Some(service) if !routes::takes_routes(service) => found.add(
                field,
                format!(
                    "Service {} has no ClusterIP, and routes match on it",
                    parent.service
                ),
                "attach the route to a Service with a ClusterIP",
            ),
            Some(service) => of_attached(tables, route, parent, service, found),
        }
    }
    for (field, mirrored, why) in routes::broken_references(tables, route) {
        let so = match mirrored {
            true => "nothing is mirrored",
            false => "its share of requests is answered 500",
        };
        found.add(
            field,
            format!("{}: {so}", why.message),
            "name a port of a Service that exists",
        );
    }
}

fn of_attached(
    tables: &Tables,
    route: &Route,
    parent: &Parent,
    service: &Service,
    found: &mut Found<'_>,
) {
    let field = format!("spec.parentRefs[{}]", parent.position);
    let mut ports = service.ports.iter().map(|it| it.port);
    if let Some(port) = parent.port
        && ports.all(|it| it != port)
    {
        return found.add(
            format!("{field}.port"),
            format!("Service {} has no port {port}", parent.service),
            "name a port of the Service, or none for all of them",
        );
    }
    for port in service.ports.iter().map(|it| it.port) {
        if parent.port.is_some_and(|it| it != port) {
            continue;
        }
        if let Some(winner) = routes::lost_to(tables, route, service, port) {
            found.add(
                field.clone(),
                format!("{} holds port {port} already", winner.key()),
                "keep one kind of route on a port",
            );
        }
    }
}

fn of_backend_policy(tables: &Tables, name: &Name, found: &mut Found<'_>) {
    let Some(policy) = tables.backend_policies.get(name) else {
        return;
    };
    for (index, target) in policy.targets.iter().enumerate() {
        let target = Name::new(&name.namespace, target);
        let field = format!("spec.targetRefs[{index}].name");
        if !tables.services.contains_key(&target) {
            found.add(
                field,
                format!("there is no Service {target}"),
                "create the Service, or name another",
            );
            continue;
        }
        if let Some(winner) = services::policy_of(tables, &target).filter(|it| it.name != *name) {
            found.add(
                field,
                format!(
                    "Service {target} has the older BackendPolicy {} already",
                    winner.name
                ),
                "merge the two",
            );
        }
    }
}

fn of_access_policy(tables: &Tables, name: &Name, found: &mut Found<'_>) {
    let Some(policy) = tables.access_policies.get(name) else {
        return;
    };
    for target in &policy.targets {
        let AccessTarget::Selected(labels) = target else {
            continue;
        };
        let mut pods = tables.pods_selected(&name.namespace, labels).peekable();
        if pods.peek().is_none() {
            found.add(
                "spec.selector.matchLabels".to_owned(),
                format!("selects no pod of namespace {}", name.namespace),
                "correct the labels, or create the pods",
            );
        } else if pods.all(|pod| !endpoints::is_meshed(tables, pod)) {
            found.add(
                "spec.selector.matchLabels".to_owned(),
                "none of the pods that it selects has a proxy: nothing enforces it".to_owned(),
                "label the pods or their namespace weft.dev/inject: enabled",
            );
        }
    }
}
