//! Which pods are to have a proxy, by their labels: the one rule of the webhook,
//! of its reconciler and of a directory of manifests.
//!
//! The webhooks' selectors (charts/weft/templates/webhooks.yaml) say it in the
//! API server's words, docs/injection.md in people's; both leave out `kube-system`
//! and the mesh's own namespace, where no directory has pods.

use super::Namespace;

/// Of a namespace and of a pod: "enabled" or "disabled".
pub const INJECT: &str = "weft.dev/inject";

/// `pod`: what the pod's own label says. A namespace says nothing where there is
/// no object of it.
pub fn wants_proxy(namespace: Option<&Namespace>, pod: Option<bool>) -> bool {
    match namespace.and_then(Namespace::inject) {
        Some("enabled") => pod != Some(false),
        Some("disabled") => false,
        _ => pod == Some(true),
    }
}

impl Namespace {
    /// What its label says.
    pub fn inject(&self) -> Option<&str> {
        self.labels.get(INJECT).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(label: Option<&str>) -> Namespace {
        let label = label.map(|it| (INJECT.to_owned(), it.to_owned()));
        Namespace {
            name: "shop".to_owned(),
            labels: label.into_iter().collect(),
        }
    }

    /// The label's values that a cell names.
    fn values(cell: &str) -> Vec<Option<&str>> {
        let all = [None, Some("enabled"), Some("disabled")];
        let is_named = |it: &Option<&str>| {
            let word = it.map_or_else(|| "none".to_owned(), |it| format!("`{it}`"));
            cell == "any" || cell.split(" or ").any(|named| named == word)
        };
        all.into_iter().filter(is_named).collect()
    }

    #[test]
    fn the_rule_is_the_table_that_people_read() {
        let text = include_str!("../../../docs/injection.md");
        let rows = text.lines().filter_map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            match cells.as_slice() {
                ["", namespace, pod, proxy @ ("yes" | "no"), ""] => {
                    Some((*namespace, *pod, *proxy == "yes"))
                }
                _ => None,
            }
        });
        let mut judged = 0;
        for (of_namespace, of_pod, expected) in rows {
            for label in values(of_namespace) {
                for said in values(of_pod) {
                    let pod = said.map(|it| it == "enabled");
                    let found = wants_proxy(Some(&namespace(label)), pod);
                    assert_eq!(found, expected, "{label:?} {said:?}");
                    judged += 1;
                }
            }
        }
        assert_eq!(judged, 9, "each pair stands in the table once");
    }

    #[test]
    fn where_there_is_no_namespace_the_pod_alone_decides() {
        assert!(wants_proxy(None, Some(true)));
        assert!(!wants_proxy(None, Some(false)));
        assert!(!wants_proxy(None, None));
    }
}
