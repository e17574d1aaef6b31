//! Which routes hold on a port of a Service, and where they lead nowhere.
//!
//! Between `tables` and those who tell it: `services` for proxies, `problems`
//! and `verdicts` for people. The rules are GEP-1294's; each is cited where it
//! is obeyed.
//!
//! Pure: reads tables, returns values.

use super::tables::Tables;
use crate::model::{
    BackendName, Broken, Filter, Name, Parent, Reason, Route, RouteKind, Rule, Service,
};

/// Those that hold on a port, oldest first. Of one namespace, all are of one
/// kind: GRPCRoutes win over HTTPRoutes, since they say more (GEP-1294, "Route
/// types"). Namespaces don't meet: a caller gets the routes of one of them.
pub(super) fn of_port<'a>(tables: &'a Tables, service: &Service, port: u16) -> Vec<&'a Route> {
    let attached = attached(tables, service, port);
    attached
        .iter()
        .copied()
        .filter(|route| winner(&attached, route).is_none())
        .collect()
}

/// Whom a route loses this port to.
pub(super) fn lost_to<'a>(
    tables: &'a Tables,
    route: &Route,
    service: &Service,
    port: u16,
) -> Option<&'a Route> {
    winner(&attached(tables, service, port), route)
}

/// A route that could not be read at all takes nothing from one that could.
fn winner<'a>(attached: &[&'a Route], route: &Route) -> Option<&'a Route> {
    let beats = |other: &&&Route| {
        other.name.namespace == route.name.namespace
            && match (other.refused.is_some(), route.refused.is_some()) {
                (false, true) => true,
                (true, false) => false,
                _ => other.kind == RouteKind::Grpc && route.kind == RouteKind::Http,
            }
    };
    attached.iter().find(beats).copied()
}

fn attached<'a>(tables: &'a Tables, service: &Service, port: u16) -> Vec<&'a Route> {
    if !takes_routes(service) {
        return Vec::new();
    }
    let mut routes: Vec<&Route> = tables
        .routes_by_parent
        .of(&service.name)
        .filter_map(|it| tables.routes.get(it))
        .filter(|route| {
            let holds = |it: &Parent| is_parent(it, &service.name, port);
            route.parents.iter().any(holds)
        })
        .collect();
    routes.sort_by_key(|route| (route.created_milliseconds, &route.name));
    routes
}

/// Routes match on the ClusterIP: headless and ExternalName Services have none,
/// so nothing attaches to them (GEP-1294, "Services").
pub(super) fn takes_routes(service: &Service) -> bool {
    !service.addresses.is_empty()
}

/// Without a port it is every port of the Service (ParentReference.port).
fn is_parent(parent: &Parent, service: &Name, port: u16) -> bool {
    parent.refused.is_none()
        && parent.service == *service
        && parent.port.is_none_or(|it| it == port)
}

/// Why a destination leads nowhere. No ReferenceGrant is asked for: whom a
/// client may call anyway, its mesh may call for it (GEP-1294).
fn broken(tables: &Tables, backend: &BackendName) -> Option<Broken> {
    let BackendName { service, port } = backend;
    let message = match tables.services.get(service) {
        None => format!("there is no Service {service}"),
        Some(found) if found.ports.iter().all(|it| it.port != *port) => {
            format!("Service {service} has no port {port}")
        }
        Some(_) => return None,
    };
    Some(Broken {
        reason: Reason::BackendNotFound,
        message,
    })
}

/// With what leads nowhere marked so.
pub(super) fn resolve(tables: &Tables, route: &Route) -> Route {
    let mut route = route.clone();
    for_references(&mut route.rules, &mut |_, backend, invalid| {
        if invalid.is_none() {
            *invalid = broken(tables, backend);
        }
    });
    route
}

/// Every reference that leads nowhere, by its field; `true` for mirrors.
pub(super) fn broken_references(tables: &Tables, route: &Route) -> Vec<(String, bool, Broken)> {
    let mut found = Vec::new();
    let mut rules = route.rules.clone();
    for_references(&mut rules, &mut |place, backend, invalid| {
        if let Some(why) = invalid.take().or_else(|| broken(tables, backend)) {
            found.push((place.field(), place.mirror.is_some(), why));
        }
    });
    found
}

/// Where in a route a destination stands.
#[derive(Clone, Copy)]
struct Place {
    rule: usize,
    backend: Option<usize>,
    mirror: Option<usize>,
}

impl Place {
    fn field(self) -> String {
        let mut field = format!("spec.rules[{}]", self.rule);
        if let Some(index) = self.backend {
            field += &format!(".backendRefs[{index}]");
        }
        if let Some(index) = self.mirror {
            field += &format!(".filters[{index}].requestMirror.backendRef");
        }
        field
    }
}

type Visit<'a> = &'a mut dyn FnMut(Place, &BackendName, &mut Option<Broken>);

fn for_references(rules: &mut [Rule], visit: Visit<'_>) {
    for (rule, it) in rules.iter_mut().enumerate() {
        let place = Place {
            rule,
            backend: None,
            mirror: None,
        };
        for_mirrors(&mut it.filters, place, visit);
        for (index, backend) in it.backends.iter_mut().enumerate() {
            let place = Place {
                backend: Some(index),
                ..place
            };
            visit(place, &backend.backend, &mut backend.invalid);
            for_mirrors(&mut backend.filters, place, visit);
        }
    }
}

fn for_mirrors(filters: &mut [Filter], place: Place, visit: Visit<'_>) {
    for (index, filter) in filters.iter_mut().enumerate() {
        if let Filter::Mirror(mirror) = filter {
            let place = Place {
                mirror: Some(index),
                ..place
            };
            visit(place, &mirror.backend, &mut mirror.invalid);
        }
    }
}
