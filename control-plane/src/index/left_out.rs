//! Which pods ask for a proxy and have none.
//!
//! Asked through `Index` by who tells people of them. Only a cluster has such
//! pods: elsewhere what labels say is what holds.
//!
//! Pure.

use crate::model::{Namespace, Pod, wants_proxy};

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

pub(super) fn is_left_out(namespace: &Namespace, pod: &Pod) -> bool {
    wants_proxy(Some(namespace), pod.asked)
        && pod.injected == Some(false)
        && !pod.host_network
        && !pod.terminating
        && !pod.finished
}

/// The namespace, and the Pod Security Standard by which it refuses what its
/// own label asks for.
pub(super) fn refusing(namespace: &Namespace) -> Option<(&str, &str)> {
    let enforced = namespace.labels.get(ENFORCE).map(String::as_str);
    match (namespace.inject(), enforced) {
        (Some("enabled"), Some(level @ ("baseline" | "restricted"))) => {
            Some((&namespace.name, level))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::INJECT;

    fn namespace(labels: &[(&str, &str)]) -> Namespace {
        let labels = labels.iter();
        Namespace {
            name: "shop".to_owned(),
            labels: labels
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn a_pod_that_is_to_have_a_proxy_and_has_none_is_left_out() {
        let plain = |asked: Option<bool>| Pod {
            injected: Some(false),
            asked,
            ..Pod::default()
        };
        let (yes, no) = (Some(true), Some(false));
        let asking = namespace(&[(INJECT, "enabled")]);
        assert!(is_left_out(&asking, &plain(None)));
        assert!(!is_left_out(&asking, &plain(no)));
        let others = [
            Pod {
                injected: yes,
                ..plain(None)
            },
            Pod {
                host_network: true,
                ..plain(None)
            },
            Pod {
                terminating: true,
                ..plain(None)
            },
            Pod {
                finished: true,
                ..plain(None)
            },
        ];
        for pod in others {
            assert!(!is_left_out(&asking, &pod), "{pod:?}");
        }
    }

    #[test]
    fn a_namespace_refuses_only_what_it_asks_for() {
        let refuses = |labels: &[(&str, &str)]| refusing(&namespace(labels)).is_some();
        assert!(refuses(&[(INJECT, "enabled"), (ENFORCE, "baseline")]));
        assert!(refuses(&[(INJECT, "enabled"), (ENFORCE, "restricted")]));
        assert!(!refuses(&[(INJECT, "enabled"), (ENFORCE, "privileged")]));
        assert!(!refuses(&[(INJECT, "enabled")]));
        assert!(!refuses(&[(ENFORCE, "restricted")]));
    }
}
