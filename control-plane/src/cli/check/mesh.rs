//! A running mesh, by what its control plane reports.
//!
//! An error is what somebody has to mend: a policy that doesn't hold, a pod
//! outside of the mesh, an authority about to end. A warning may mend itself or
//! may be meant. What could not be learnt is an error too, never silence.
//!
//! Pure.

use super::{Finding, Found, Severity, What};
use crate::{
    cli::status::span,
    report::{Problem, Proxy, Report},
};

const DAY: i64 = 86_400;
/// Time to act before nothing can be signed; events come as early.
const SOON: i64 = 30 * DAY;
const NOW: i64 = 7 * DAY;

pub(super) fn check(report: &Report, in_cluster: bool) -> Found {
    let mut found = Found {
        of: "proxies",
        looked_at: report.proxies.len(),
        findings: Vec::new(),
    };
    replicas(report, &mut found);
    authority(report, &mut found);
    for it in &report.problems {
        problem(it, &mut found);
    }
    unmeshed(report, in_cluster, &mut found);
    for it in &report.not_connected {
        let (severity, message) = match it.ready {
            true => (
                Severity::Error,
                "its proxy is not connected to the control plane: it serves by what it has received before, until its certificate ends",
            ),
            false => (
                Severity::Warning,
                "its proxy is not connected to the control plane, and the pod is not ready",
            ),
        };
        let remedy = "read /ready of its port 15021 and the log of its container weft-proxy";
        found.add(severity, What::NotConnected, &pod(&it.pod), message, remedy);
    }
    for it in &report.proxies {
        proxy(it, report, &mut found);
    }
    found.findings.sort();
    found
}

impl Found {
    fn add(
        &mut self,
        severity: Severity,
        what: What,
        object: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding {
            severity,
            what,
            place: String::new(),
            object: object.to_owned(),
            field: String::new(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }
}

fn pod(name: &str) -> String {
    format!("Pod {name}")
}

fn replicas(report: &Report, found: &mut Found) {
    for it in report.replicas.iter().filter(|it| !it.error.is_empty()) {
        let message = format!(
            "this replica of the control plane did not answer, and which proxies are connected is not known: {}",
            it.error
        );
        let remedy = "look at its log and its events, and check again";
        found.add(
            Severity::Error,
            What::ReplicaSilent,
            &pod(&it.name),
            message,
            remedy,
        );
    }
    if !report.synced {
        let message = "the control plane has not read its source yet: nothing below is whole";
        let remedy = "its /ready says what it waits for; check again when it is ready";
        found.add(Severity::Error, What::SourceUnread, "", message, remedy);
    }
}

fn authority(report: &Report, found: &mut Found) {
    let severity = |left: i64| match left {
        left if left <= NOW => Some(Severity::Error),
        left if left <= SOON => Some(Severity::Warning),
        _ => None,
    };
    let ends = |left: i64| match left {
        left if left > 0 => format!("ends in {}", span(left as f64)),
        _ => "has ended".to_owned(),
    };
    let left = report.authority.ends_seconds;
    if let Some((left, severity)) = left.and_then(|left| Some((left, severity(left)?))) {
        let message = format!("what signs the mesh's certificates {}", ends(left));
        let remedy = "weft ca rotate; where the Secret is yours, renew it";
        found.add(severity, What::AuthorityEnds, "", message, remedy);
    }
    // Of the rest, one that ends beside another that doesn't is a rotation's.
    let lasts = |it: &i64| severity(*it).is_none();
    let another_lasts = report
        .authority
        .roots
        .iter()
        .any(|it| lasts(&it.ends_seconds));
    for root in &report.authority.roots {
        let Some(severity) = severity(root.ends_seconds) else {
            continue;
        };
        let severity = if another_lasts {
            Severity::Warning
        } else {
            severity
        };
        let short: String = root.root.chars().take(16).collect();
        let message = format!("the trusted root {short} {}", ends(root.ends_seconds));
        let remedy = "weft ca rotate; where the Secret is yours, give another root beside it";
        found.add(severity, What::RootEnds, "", message, remedy);
    }
}

/// Of others' objects the mesh says what it can't keep, and goes on.
fn problem(it: &Problem, found: &mut Found) {
    let is_others = ["Service ", "EndpointSlice ", "Pod ", "Node ", "Namespace "]
        .iter()
        .any(|kind| it.object.starts_with(kind));
    let place = match it.document {
        0 => it.file.clone(),
        document => format!("{} document {document}", it.file),
    };
    found.findings.push(Finding {
        severity: if is_others {
            Severity::Warning
        } else {
            Severity::Error
        },
        what: What::Object,
        place,
        object: it.object.clone(),
        field: it.field.clone(),
        message: it.message.clone(),
        remedy: it.remedy.clone(),
    });
}

fn unmeshed(report: &Report, in_cluster: bool, found: &mut Found) {
    for it in &report.refusing {
        let message = format!(
            "asks for the mesh and enforces the Pod Security Standard {}, which refuses pods with a proxy: none can be made there",
            it.level
        );
        let remedy = format!(
            "kubectl label --overwrite namespace {0} pod-security.kubernetes.io/enforce=privileged, or take {0} out of the mesh",
            it.namespace
        );
        let object = format!("Namespace {}", it.namespace);
        found.add(Severity::Error, What::PodSecurity, &object, message, remedy);
    }
    let Some(unmeshed) = &report.unmeshed else {
        if in_cluster {
            let message = "which pods were left out of the mesh is not known: no replica that answered has looked";
            let remedy =
                "check again in a minute; if it stays, no replica gets the Lease: read their logs";
            found.add(Severity::Error, What::UnmeshedUnknown, "", message, remedy);
        }
        return;
    };
    for it in &unmeshed.pods {
        found.add(
            Severity::Error,
            What::Unmeshed,
            &pod(&it.pod),
            &it.message,
            &it.remedy,
        );
    }
    if unmeshed.left_out > 0 {
        let message = format!(
            "{} more pods ask for the mesh and may not be in it",
            unmeshed.left_out
        );
        let remedy =
            "restart the workloads of the namespaces that ask for the mesh, and check again";
        found.add(Severity::Error, What::Unmeshed, "", message, remedy);
    }
}

fn proxy(it: &Proxy, report: &Report, found: &mut Found) {
    let object = pod(&it.pod);
    for reject in &it.rejects {
        let message = format!("its proxy rejects {}: {}", reject.name, reject.reason);
        let remedy = "it keeps what it had; restart the pod for a proxy of the control plane's version, or mend the object";
        found.add(Severity::Error, What::Rejected, &object, message, remedy);
    }
    for denied in &it.denied {
        let message = format!("its proxy can't express {denied}, and denies what it is about");
        let remedy = "restart the pod for a proxy of the control plane's version";
        found.add(Severity::Error, What::Denied, &object, message, remedy);
    }
    let behind = it.resources.iter().filter(|it| it.held != it.newest);
    let behind: Vec<_> = behind.map(|it| it.name.as_str()).collect();
    if let Some(first) = behind.first() {
        let message = format!(
            "its proxy is behind on {} objects, {first} first",
            behind.len()
        );
        let remedy = "check again; if it stays, read the log of its container weft-proxy";
        found.add(Severity::Warning, What::Behind, &object, message, remedy);
    }
    let versions: Vec<_> = report
        .replicas
        .iter()
        .map(|it| it.version.as_str())
        .collect();
    let known = versions.iter().find(|it| !it.is_empty());
    if let Some(known) = known
        && !versions.contains(&it.version.as_str())
    {
        let message = format!(
            "its proxy is of version {}, the control plane of {known}",
            it.version
        );
        let remedy = "restart the pod when it suits";
        found.add(Severity::Warning, What::Version, &object, message, remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{
        Authority, Disconnected, Refusing, Reject, Replica, Resource, Root, Unmeshed, UnmeshedPod,
    };

    fn replica(error: &str) -> Replica {
        Replica {
            name: "weft-control-plane-0".into(),
            version: "2.0.0".into(),
            error: error.into(),
        }
    }

    /// In which nothing is wrong.
    fn good() -> Report {
        Report {
            synced: true,
            replicas: vec![replica("")],
            proxies: vec![web()],
            unmeshed: Some(Unmeshed::default()),
            authority: authority(300 * DAY, &[300 * DAY]),
            ..Report::default()
        }
    }

    fn web() -> Proxy {
        Proxy {
            pod: "shop/web-0".into(),
            version: "2.0.0".into(),
            ..Proxy::default()
        }
    }

    fn authority(ends_seconds: i64, roots: &[i64]) -> Authority {
        let roots = roots.iter().map(|ends| Root {
            root: "ab".repeat(32),
            ends_seconds: *ends,
        });
        Authority {
            ends_seconds: Some(ends_seconds),
            roots: roots.collect(),
        }
    }

    fn of(report: &Report) -> Vec<(Severity, What, String)> {
        let found = check(report, true).findings.into_iter();
        found.map(|it| (it.severity, it.what, it.object)).collect()
    }

    use Severity::{Error, Warning};

    #[test]
    fn a_good_mesh_has_nothing_to_say() {
        let found = check(&good(), true);
        assert_eq!(found.findings, []);
        let text = found.text(crate::cli::asking::Output::Table).unwrap();
        assert_eq!(text, "1 proxies, 0 errors, 0 warnings\n");
    }

    /// What is said of a good mesh after one change.
    fn after(change: impl FnOnce(&mut Report)) -> Vec<(Severity, What, String)> {
        let mut report = good();
        change(&mut report);
        of(&report)
    }

    fn only(severity: Severity, what: What, object: &str) -> Vec<(Severity, What, String)> {
        vec![(severity, what, object.to_owned())]
    }

    #[test]
    fn an_answer_that_is_not_whole_is_an_error() {
        let found = after(|it| it.synced = false);
        assert_eq!(found, only(Error, What::SourceUnread, ""));
        let silent = Replica {
            name: "b".into(),
            error: "gone".into(),
            ..Replica::default()
        };
        let found = after(|it| it.replicas.push(silent));
        assert_eq!(found, only(Error, What::ReplicaSilent, "Pod b"));
        let found = after(|it| it.unmeshed = None);
        assert_eq!(found, only(Error, What::UnmeshedUnknown, ""));
    }

    #[test]
    fn pods_outside_of_the_mesh_and_what_keeps_them_there_are_errors() {
        let left_out = |pods: Vec<UnmeshedPod>, left_out| {
            Some(Unmeshed {
                pods,
                left_out,
                ..Unmeshed::default()
            })
        };
        let pod = UnmeshedPod {
            pod: "shop/a".into(),
            ..UnmeshedPod::default()
        };
        let found = after(|it| it.unmeshed = left_out(vec![pod], 0));
        assert_eq!(found, only(Error, What::Unmeshed, "Pod shop/a"));
        let found = after(|it| it.unmeshed = left_out(Vec::new(), 4));
        assert_eq!(found, only(Error, What::Unmeshed, ""));
        let refusing = Refusing {
            namespace: "shop".into(),
            level: "baseline".into(),
        };
        let found = after(|it| it.refusing = vec![refusing]);
        assert_eq!(found, only(Error, What::PodSecurity, "Namespace shop"));
    }

    #[test]
    fn proxies_that_are_away_old_or_behind_are_told_by_their_pods() {
        let away = |ready| {
            let pod = "shop/b".into();
            vec![Disconnected { pod, ready }]
        };
        let found = after(|it| it.not_connected = away(true));
        assert_eq!(found, only(Error, What::NotConnected, "Pod shop/b"));
        let found = after(|it| it.not_connected = away(false));
        assert_eq!(found, only(Warning, What::NotConnected, "Pod shop/b"));
        let web = "Pod shop/web-0";
        let found = after(|it| it.proxies[0].rejects = vec![Reject::default()]);
        assert_eq!(found, only(Error, What::Rejected, web));
        let found = after(|it| it.proxies[0].denied = vec!["it".into()]);
        assert_eq!(found, only(Error, What::Denied, web));
        let found = after(|it| it.proxies[0].version = "1.9.0".into());
        assert_eq!(found, only(Warning, What::Version, web));
        let stale = Resource {
            newest: "1".into(),
            ..Resource::default()
        };
        let found = after(|it| it.proxies[0].resources = vec![stale]);
        assert_eq!(found, only(Warning, What::Behind, web));
    }

    #[test]
    fn policy_that_does_not_hold_is_an_error_and_others_objects_a_warning() {
        let problem = |object: &str| Problem {
            object: object.into(),
            ..Problem::default()
        };
        let route = "HTTPRoute shop/cart";
        let found = after(|it| it.problems = vec![problem(route)]);
        assert_eq!(found, only(Error, What::Object, route));
        let service = "Service shop/cart";
        let found = after(|it| it.problems = vec![problem(service)]);
        assert_eq!(found, only(Warning, What::Object, service));
    }

    #[test]
    fn a_root_that_ends_is_a_warning_in_the_last_month_and_then_an_error() {
        let of = |ends: i64, roots: &[i64]| {
            let mut report = good();
            report.authority = authority(ends, roots);
            let found = of(&report).into_iter();
            found.map(|it| (it.0, it.1)).collect::<Vec<_>>()
        };
        let (authority, root) = (What::AuthorityEnds, What::RootEnds);
        assert_eq!(of(31 * DAY, &[31 * DAY]), []);
        let month = [(Warning, authority), (Warning, root)];
        assert_eq!(of(30 * DAY, &[30 * DAY]), month);
        assert_eq!(of(7 * DAY, &[7 * DAY]), [(Error, authority), (Error, root)]);
        assert_eq!(of(-1, &[-1]), [(Error, authority), (Error, root)]);
        // In a rotation the old one may end.
        assert_eq!(of(300 * DAY, &[DAY, 300 * DAY]), [(Warning, root)]);
    }

    #[test]
    fn without_a_cluster_nobody_is_expected_to_look_for_pods() {
        let report = Report {
            unmeshed: None,
            ..good()
        };
        assert_eq!(check(&report, false).findings, []);
    }
}
