//! What the added containers request, and are limited to.
//!
//! Small requests and no limit, unless an annotation, the namespace or the
//! pod's class says otherwise. What a LimitRange doesn't allow is moved to where
//! it does, since the API server would refuse the pod. A Guaranteed pod (every
//! container's limits are its requests) stays one: nodes evict others first, and
//! some pin its CPUs.
//!
//! Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    Bounds, Namespace, Refusal, Settings,
    annotations::{Annotations, CPU_LIMIT, CPU_REQUEST, MEMORY_LIMIT, MEMORY_REQUEST},
};

/// One kind of resource on its way into the container.
struct Resource<'a> {
    name: &'static str,
    request: (&'static str, &'a str),
    limit: (&'static str, &'a str),
    bounds: &'a Bounds,
}

/// `requests` and `limits` of the added containers; empty ones are left out.
///
/// # Errors
/// When annotations contradict each other, the pod's class or the namespace.
pub(super) fn requirements(
    spec: &PodSpec,
    annotations: &Annotations,
    namespace: &Namespace,
    settings: &Settings,
) -> Result<ResourceRequirements, Refusal> {
    let defaults = &settings.resources;
    let wanted = [
        Resource {
            name: "cpu",
            request: (CPU_REQUEST, &defaults.cpu_request),
            limit: (CPU_LIMIT, &defaults.cpu_limit),
            bounds: &namespace.cpu,
        },
        Resource {
            name: "memory",
            request: (MEMORY_REQUEST, &defaults.memory_request),
            limit: (MEMORY_LIMIT, &defaults.memory_limit),
            bounds: &namespace.memory,
        },
    ];
    let is_guaranteed = is_guaranteed(spec);
    // Resources of the pod as a whole (KEP-2837) decide for all containers.
    let is_pod_wide = spec.resources.is_some();
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for resource in wanted {
        let (request, limit) = resource.decide(annotations, is_guaranteed, is_pod_wide)?;
        let quantity = |text: String| (resource.name.to_owned(), Quantity(text));
        requests.extend(request.map(quantity));
        limits.extend(limit.map(quantity));
    }
    let said = |it: BTreeMap<_, _>| (!it.is_empty()).then_some(it);
    Ok(ResourceRequirements {
        claims: None,
        requests: said(requests),
        limits: said(limits),
    })
}

impl Resource<'_> {
    fn decide(
        &self,
        annotations: &Annotations,
        is_guaranteed: bool,
        is_pod_wide: bool,
    ) -> Result<(Option<String>, Option<String>), Refusal> {
        let (asked, limited) = (
            annotations.get(self.request.0),
            annotations.get(self.limit.0),
        );
        if is_pod_wide {
            return Ok((asked.map(str::to_owned), limited.map(str::to_owned)));
        }
        let demanded = self.bounds.demands_limit || is_guaranteed;
        let limit = limited.or_else(|| demanded.then_some(self.limit.1));
        let limit = limit.map(|it| self.bounded(self.limit.0, it, limited.is_some()));
        let (Some(limit), request) = (limit.transpose()?, asked.unwrap_or(self.request.1)) else {
            let request = asked.unwrap_or(self.request.1);
            let request = self.bounded(self.request.0, request, asked.is_some())?;
            return Ok((Some(request.to_owned()), None));
        };
        let (most, wanted) = (amount(limit), amount(request));
        let refused = |message: String, remedy: String| {
            Err(Refusal::new(&field(self.request.0), message, remedy))
        };
        match asked {
            Some(asked) if is_guaranteed && wanted != most => refused(
                format!(
                    "is {asked}, not the limit {limit}: the pod would not be Guaranteed any more"
                ),
                format!("remove it, and say how much by {}", self.limit.0),
            ),
            Some(asked) if wanted > most => refused(
                format!("is {asked}, more than the limit {limit}"),
                format!("lower it, or raise {}", self.limit.0),
            ),
            _ if is_guaranteed || wanted > most => {
                Ok((Some(limit.to_owned()), Some(limit.to_owned())))
            }
            _ => {
                let request = self.bounded(self.request.0, request, asked.is_some())?;
                self.in_ratio((request, asked.is_some()), (limit, limited.is_some()))
            }
        }
    }

    /// Within what the namespace allows a container. What somebody asked for is
    /// not changed behind his back.
    fn bounded<'a>(
        &'a self,
        annotation: &str,
        wanted: &'a str,
        is_asked: bool,
    ) -> Result<&'a str, Refusal> {
        let Bounds { least, most, .. } = self.bounds;
        let (least, most) = (least.as_deref(), most.as_deref());
        if let (Some(least), Some(most)) = (least, most)
            && amount(least) > amount(most)
        {
            let name = self.name;
            let message = format!(
                "would get no {name} that the namespace's LimitRanges allow a container: at least {least}, at most {most}"
            );
            return Err(Refusal::new(
                "spec.initContainers",
                message,
                "correct the LimitRanges",
            ));
        }
        let (bound, word, remedy) = match (least, most) {
            (Some(least), _) if amount(wanted) < amount(least) => (least, "less", "raise"),
            (_, Some(most)) if amount(wanted) > amount(most) => (most, "more", "lower"),
            _ => return Ok(wanted),
        };
        match is_asked {
            false => Ok(bound),
            true => Err(Refusal::new(
                &field(annotation),
                format!("is {wanted}, {word} than a LimitRange of the namespace allows"),
                format!("{remedy} it to {bound}, or remove it"),
            )),
        }
    }

    /// Requests more, or is limited to less where the request was asked for: a
    /// proxy that was promised more than it needs is better than a throttled one.
    fn in_ratio(
        &self,
        (request, is_request_asked): (&str, bool),
        (limit, is_limit_asked): (&str, bool),
    ) -> Result<(Option<String>, Option<String>), Refusal> {
        let (request_text, limit_text) = (request.to_owned(), limit.to_owned());
        let ratio = self.bounds.ratio.as_deref();
        let all = (
            amount(request),
            amount(limit),
            ratio.and_then(amount).filter(|it| *it > 0),
        );
        let (Some(request), Some(limit), Some(allowed)) = all else {
            return Ok((Some(request_text), Some(limit_text)));
        };
        if limit * 1000 <= request * allowed {
            return Ok((Some(request_text), Some(limit_text)));
        }
        match (is_request_asked, is_limit_asked) {
            (false, _) => {
                let raised = self.written((limit * 1000).div_ceil(allowed), true);
                Ok((Some(raised), Some(limit_text)))
            }
            (true, false) => {
                let lowered = self.written(request * allowed / 1000, false);
                Ok((Some(request_text), Some(lowered)))
            }
            (true, true) => Err(Refusal::new(
                &field(self.limit.0),
                format!(
                    "is {limit_text}, more than {} times the request {request_text}, which is what a LimitRange of the \
                     namespace allows",
                    ratio.unwrap_or_default()
                ),
                format!("lower it, or raise {}", self.request.0),
            )),
        }
    }

    /// As Kubernetes writes so many thousandths; bytes are whole.
    fn written(&self, thousandths: u128, up: bool) -> String {
        match self.name {
            "cpu" => format!("{thousandths}m"),
            _ if up => thousandths.div_ceil(1000).to_string(),
            _ => (thousandths / 1000).to_string(),
        }
    }
}

fn field(annotation: &str) -> String {
    format!("metadata.annotations[{annotation:?}]")
}

/// Does every container limit CPU and memory to what it requests?
fn is_guaranteed(spec: &PodSpec) -> bool {
    let mut all = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    all.all(|it| ["cpu", "memory"].iter().all(|name| is_fixed(it, name)))
}

fn is_fixed(container: &Container, name: &str) -> bool {
    let resources = container.resources.as_ref();
    let of = |all: Option<&BTreeMap<String, Quantity>>| {
        all.and_then(|it| it.get(name)).and_then(|it| amount(&it.0))
    };
    let limit = of(resources.and_then(|it| it.limits.as_ref()));
    // What isn't requested defaults to the limit.
    let request = of(resources.and_then(|it| it.requests.as_ref())).or(limit);
    limit.is_some_and(|it| it > 0) && request == limit
}

/// Thousandths of a quantity, as Kubernetes writes one; nothing below.
pub(super) fn amount(text: &str) -> Option<u128> {
    let unit_at = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(unit_at)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && part.is_empty()) || part.len() > 9 || whole.len() > 18 {
        return None;
    }
    // Whoever writes `2e3` or `1E3` for a container is not understood.
    let factor: u128 = match unit {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        "Pi" => 1000 << 50,
        _ => return None,
    };
    let digits = |text: &str| match text {
        "" => Some(0),
        text => text.parse::<u128>().ok(),
    };
    let scale = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let nominator = digits(whole)?
        .checked_mul(scale)?
        .checked_add(digits(part)?)?;
    Some(nominator.checked_mul(factor)? / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_by_amount() {
        for (one, other) in [
            ("1", "1000m"),
            ("0.5", "500m"),
            ("1Ki", "1024"),
            ("1.5Gi", "1536Mi"),
            (".5", "0.5"),
        ] {
            assert_eq!(amount(one), amount(other), "{one} {other}");
            assert!(amount(one).is_some(), "{one}");
        }
        for wrong in ["", "m", ".", "-1", "1MB", "1 Mi", "1..5", "Mi", "1e", "٣"] {
            assert_eq!(amount(wrong), None, "{wrong}");
        }
    }
}
