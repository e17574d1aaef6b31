//! Rules of routes as requests meet them: backends found, filters compiled.
//!
//! Part of `store`; `assemble` puts them into the service port's table. A
//! rule's filters come before its backend's, each in its own order.

use std::sync::Arc;

use super::Store;
use crate::{
    control::decode::{Filter, HeaderModifier, RouteRetry, RouteRule, Target},
    discovery::{
        Backend, FieldEdits, Filters, Mirror, Redirect, Retries, Rule, RuleCells, Schedule,
        ServiceName, ServicePort, WeightedBackend,
    },
};

/// Where a rule stands.
pub(super) struct Place<'a> {
    /// "namespace/name".
    pub(super) route: &'a Arc<str>,
    pub(super) index: u32,
    /// The port that its route is attached to.
    pub(super) parent: &'a Target,
    /// That port's own endpoints.
    pub(super) default: &'a Arc<Backend>,
}

impl Store {
    pub(super) fn build_rule(&mut self, rule: RouteRule, place: &Place<'_>) -> Rule {
        let Place {
            parent, default, ..
        } = place;
        // No backend is asked where a redirect answers.
        let redirects = |filter: &Filter| matches!(filter, Filter::Redirect(_));
        let is_redirect = rule.filters.iter().any(redirects);
        let shares = if is_redirect {
            Vec::new()
        } else {
            rule.backends
        };
        let mut backends: Vec<_> = shares
            .into_iter()
            .map(|share| WeightedBackend {
                weight: share.weight,
                backend: self.resolve(share.target),
                filters: self.compile(rule.filters.iter().chain(&share.filters), parent),
            })
            .collect();
        if backends.is_empty() {
            backends.push(WeightedBackend {
                weight: 1,
                backend: Ok(Arc::clone(default)),
                filters: self.compile(rule.filters.iter(), parent),
            });
        }
        if let Some(retry) = &rule.retry {
            for backend in backends.iter_mut().flat_map(|share| &mut share.backend) {
                *backend = Arc::new(backend.with_retries(retried(&backend.policy.retries, retry)));
            }
        }
        Rule {
            route: Arc::clone(place.route),
            index: place.index,
            schedule: Schedule::new(backends.iter().map(|backend| backend.weight)),
            backends,
            request_timeout: rule.request_timeout,
            backend_timeout: rule.backend_timeout,
            cells: Arc::default(),
        }
    }

    fn resolve(&mut self, target: Result<Target, Box<str>>) -> Result<Arc<Backend>, Box<str>> {
        let target = target?;
        let is_known =
            self.services.contains_key(&target.service) || self.groups.contains_key(&target);
        if is_known {
            Ok(self.backend(&target))
        } else {
            Err(format!("{}:{} is not known", target.service, target.port).into())
        }
    }

    /// `None` where nothing is changed.
    fn compile<'a>(
        &mut self,
        all: impl Iterator<Item = &'a Filter>,
        parent: &Target,
    ) -> Option<Arc<Filters>> {
        let mut all = all.peekable();
        all.peek()?;
        let mut filters = Filters::default();
        let mut response = FieldEdits::default();
        for filter in all {
            match filter {
                Filter::RequestHeaders(it) => edit(&mut filters.request.fields, it),
                Filter::ResponseHeaders(it) => edit(&mut response, it),
                Filter::Rewrite { hostname, path } => {
                    let request = &mut filters.request;
                    request.host = hostname.clone().or_else(|| request.host.take());
                    request.path = path.clone().or_else(|| request.path.take());
                }
                Filter::Redirect(it) => {
                    let service = &parent.service;
                    filters.redirect = Some(Redirect {
                        scheme: it.scheme.unwrap_or("http"),
                        hostname: it.hostname.clone(),
                        port: Redirect::port(it.scheme, it.port, parent.port),
                        path: it.path.clone(),
                        status: it.status,
                        service_host: format!("{}.{}", service.name, service.namespace).into(),
                    });
                }
                Filter::Mirror {
                    target,
                    numerator,
                    denominator,
                } => filters.mirrors.push(Mirror {
                    backend: self.resolve(target.clone()),
                    numerator: *numerator,
                    denominator: *denominator,
                }),
                Filter::Cors(cors) => filters.cors = Some(cors.clone()),
            }
        }
        filters.response = Arc::new(response);
        Some(Arc::new(filters))
    }
}

fn edit(fields: &mut FieldEdits, modifier: &HeaderModifier) {
    for (name, value) in &modifier.set {
        fields.set(name, value.clone());
    }
    for (name, value) in &modifier.add {
        fields.add(name, value.clone());
    }
    for name in &modifier.remove {
        fields.remove(name);
    }
}

/// The rule's own word on what is tried again, and how often; methods, times
/// and budget stay the BackendPolicy's.
fn retried(policy: &Retries, retry: &RouteRetry) -> Retries {
    let mut retries = policy.clone();
    retries.attempts = retry.attempts;
    if !retry.codes.is_empty() {
        retries.status_codes.clone_from(&retry.codes);
    }
    if let Some(backoff) = retry.backoff {
        retries.least_backoff = backoff;
    }
    retries
}

/// The turns go on where a rule's weights stay what they were.
pub(super) fn keep_turns(mut rule: Rule, old: Option<&ServicePort>) -> Arc<Rule> {
    fn shares(rule: &Rule) -> impl Iterator<Item = (u32, Option<(&ServiceName, u16)>)> {
        rule.backends.iter().map(|share| {
            let backend = share.backend.as_ref().ok();
            (
                share.weight,
                backend.map(|backend| (&backend.service, backend.port)),
            )
        })
    }
    let old = old.and_then(|port| port.routes.as_ref());
    let same = old.and_then(|table| {
        table.entries.iter().map(|(_, old)| old).find(|old| {
            old.route == rule.route && old.index == rule.index && shares(old).eq(shares(&rule))
        })
    });
    if let Some(same) = same {
        rule.cells = Arc::<RuleCells>::clone(&same.cells);
    }
    Arc::new(rule)
}
