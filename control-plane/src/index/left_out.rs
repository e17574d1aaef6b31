//! Which pods ask for a proxy and have none.
//!
//! Asked through `Index` by who tells people of them. The choice is that of the
//! webhook's selectors (charts/weft/templates/webhooks.yaml). Only a cluster has
//! such pods: elsewhere what a label says is what holds.
//!
//! Pure.

use crate::model::{Namespace, Pod};

const INJECT: &str = "weft.dev/inject";
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

pub(super) fn is_left_out(namespace: &Namespace, pod: &Pod) -> bool {
    let asks = match namespace.labels.get(INJECT).map(String::as_str) {
        Some("enabled") => pod.asked != Some(false),
        Some("disabled") => false,
        _ => pod.asked == Some(true),
    };
    asks && pod.inject == Some(false) && !pod.host_network && !pod.terminating && !pod.finished
}

/// The namespace, and the Pod Security Standard by which it refuses what its
/// own label asks for.
pub(super) fn refusing(namespace: &Namespace) -> Option<(&str, &str)> {
    let of = |key: &str| namespace.labels.get(key).map(String::as_str);
    match (of(INJECT), of(ENFORCE)) {
        (Some("enabled"), Some(level @ ("baseline" | "restricted"))) => {
            Some((&namespace.name, level))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_choice_is_the_webhooks() {
        let plain = |asked: Option<bool>| Pod {
            inject: Some(false),
            asked,
            ..Pod::default()
        };
        let (yes, no) = (Some(true), Some(false));
        for (label, asked, expected) in [
            (Some("enabled"), None, true),
            (Some("enabled"), yes, true),
            (Some("enabled"), no, false),
            (Some("disabled"), yes, false),
            (None, None, false),
            (None, yes, true),
            (None, no, false),
        ] {
            let labels: Vec<_> = label.iter().map(|it| (INJECT, *it)).collect();
            let found = is_left_out(&namespace(&labels), &plain(asked));
            assert_eq!(found, expected, "{label:?} {asked:?}");
        }
        let asking = namespace(&[(INJECT, "enabled")]);
        let others = [
            Pod {
                inject: yes,
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
