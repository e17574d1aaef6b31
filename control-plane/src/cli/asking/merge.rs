//! One answer of those of several replicas.
//!
//! Each knows the proxies that are connected to it, and all know the same
//! objects. Whoever did not answer is named in the answer, and what it alone
//! could have known is never taken for absent.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;

use super::cluster::Answers;
use crate::report::{Certificate, Disconnected, Proxy, Replica, Report};

/// # Errors
/// The first error, where none has answered.
pub(super) fn first<T>(answers: impl Iterator<Item = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut last = None;
    for answer in answers {
        match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => last = last.or(Some(error)),
        }
    }
    match last {
        Some(error) => Err(error),
        None => bail!("there is no control plane"),
    }
}

/// # Errors
/// When none has answered.
pub(super) fn reports(answers: Answers<Report>) -> anyhow::Result<Report> {
    let mut replicas = Vec::new();
    let mut told = Vec::new();
    for (name, answer) in answers {
        let mut replica = Replica {
            name,
            ..Replica::default()
        };
        match answer {
            Ok(report) => {
                let own = report.replicas.first();
                replica.version = own.map(|it| it.version.clone()).unwrap_or_default();
                told.push(report);
            }
            Err(error) => replica.error = format!("{error:#}"),
        }
        replicas.push(replica);
    }
    if told.is_empty() {
        let errors = replicas
            .iter()
            .map(|it| format!("{}: {}", it.name, it.error));
        bail!("{}", errors.collect::<Vec<_>>().join("; "));
    }
    let is_whole = replicas.iter().all(|it| it.error.is_empty());
    let mut merged = merged(told, is_whole);
    merged.replicas = replicas;
    Ok(merged)
}

fn merged(told: Vec<Report>, is_whole: bool) -> Report {
    let not_connected = match is_whole {
        true => disconnected(&told),
        // Whoever is missing here may be connected there.
        false => Vec::new(),
    };
    let mut merged = Report {
        synced: told.iter().all(|it| it.synced),
        not_connected,
        ..Report::default()
    };
    let mut proxies: BTreeMap<String, Proxy> = BTreeMap::new();
    let mut certificates: BTreeMap<String, Certificate> = BTreeMap::new();
    for report in told {
        merged.trust_domain = report.trust_domain;
        for proxy in report.proxies {
            keep(&mut proxies, proxy.pod.clone(), proxy, |new, old| {
                new.connected_seconds < old.connected_seconds
            });
        }
        for it in report.certificates {
            keep(&mut certificates, it.pod.clone(), it, |new, old| {
                new.age_seconds < old.age_seconds
            });
        }
        merged.problems.extend(report.problems);
        merged.refusing.extend(report.refusing);
        let (all, it) = (&mut merged.authority, report.authority);
        all.ends_seconds = [all.ends_seconds, it.ends_seconds]
            .into_iter()
            .flatten()
            .min();
        for root in it.roots {
            if all.roots.iter().all(|held| held.root != root.root) {
                all.roots.push(root);
            }
        }
        // Of two that held the Lease, the one that has looked last.
        let ago = |it: &Report| it.unmeshed.as_ref().map(|it| it.seconds_ago);
        let newest = report.unmeshed.as_ref().map(|it| it.seconds_ago);
        if newest.is_some_and(|new| ago(&merged).is_none_or(|old| new < old)) {
            merged.unmeshed = report.unmeshed;
        }
    }
    merged.proxies = proxies.into_values().collect();
    merged.certificates = certificates.into_values().collect();
    merged.problems.sort();
    merged.problems.dedup();
    merged.refusing.sort();
    merged.refusing.dedup();
    merged
}

fn keep<T>(kept: &mut BTreeMap<String, T>, key: String, it: T, is_newer: fn(&T, &T) -> bool) {
    match kept.get(&key) {
        Some(old) if !is_newer(&it, old) => {}
        _ => drop(kept.insert(key, it)),
    }
}

/// Connected to none of them: each names those that are not connected to it.
fn disconnected(told: &[Report]) -> Vec<Disconnected> {
    let Some((first, others)) = told.split_first() else {
        return Vec::new();
    };
    let others: Vec<BTreeSet<&str>> = others
        .iter()
        .map(|it| it.not_connected.iter().map(|it| it.pod.as_str()).collect())
        .collect();
    let nowhere = |it: &&Disconnected| others.iter().all(|all| all.contains(it.pod.as_str()));
    first
        .not_connected
        .iter()
        .filter(nowhere)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::report::{Authority, Problem, Root, Unmeshed};

    fn proxy(pod: &str, connected_seconds: f64) -> Proxy {
        Proxy {
            pod: pod.to_owned(),
            connected_seconds,
            ..Proxy::default()
        }
    }

    fn away(pods: &[&str]) -> Vec<Disconnected> {
        let all = pods.iter().map(|pod| Disconnected {
            pod: (*pod).to_owned(),
            ready: true,
        });
        all.collect()
    }

    fn of(replicas: Vec<(&str, anyhow::Result<Report>)>) -> anyhow::Result<Report> {
        let named = replicas.into_iter().map(|(name, it)| (name.to_owned(), it));
        reports(named.collect())
    }

    #[test]
    fn a_proxy_is_where_it_connected_last_and_nowhere_only_if_nobody_has_it() {
        let one = Report {
            proxies: vec![proxy("shop/a", 100.0), proxy("shop/b", 5.0)],
            not_connected: away(&["shop/c", "shop/d"]),
            ..Report::default()
        };
        let other = Report {
            proxies: vec![proxy("shop/a", 1.0), proxy("shop/c", 7.0)],
            not_connected: away(&["shop/b", "shop/d"]),
            ..Report::default()
        };
        let report = of(vec![("x", Ok(one)), ("y", Ok(other))]).unwrap();
        let proxies = report
            .proxies
            .iter()
            .map(|it| (&*it.pod, it.connected_seconds));
        let expected = [("shop/a", 1.0), ("shop/b", 5.0), ("shop/c", 7.0)];
        assert_eq!(proxies.collect::<Vec<_>>(), expected);
        assert_eq!(report.not_connected, away(&["shop/d"]));
    }

    #[test]
    fn a_replica_that_is_silent_is_named_and_nothing_is_concluded_from_it() {
        let one = Report {
            not_connected: away(&["shop/a"]),
            ..Report::default()
        };
        let report = of(vec![("x", Ok(one)), ("y", Err(anyhow!("refused")))]).unwrap();
        assert_eq!(report.not_connected, []);
        assert_eq!(report.replicas[1].error, "refused");
        let error = of(vec![("x", Err(anyhow!("refused")))]).unwrap_err();
        assert_eq!(error.to_string(), "x: refused");
    }

    #[test]
    fn what_all_know_stands_once_and_the_earliest_end_counts() {
        let problem = Problem {
            object: "HTTPRoute shop/cart".to_owned(),
            ..Problem::default()
        };
        let report = |synced, ends, root: &str, seconds_ago: Option<f64>| Report {
            synced,
            problems: vec![problem.clone()],
            authority: Authority {
                ends_seconds: Some(ends),
                roots: vec![Root {
                    root: root.to_owned(),
                    ends_seconds: 9,
                }],
            },
            unmeshed: seconds_ago.map(|seconds_ago| Unmeshed {
                seconds_ago,
                ..Unmeshed::default()
            }),
            ..Report::default()
        };
        let merged = of(vec![
            ("x", Ok(report(true, 7, "aa", Some(40.0)))),
            ("y", Ok(report(false, 5, "aa", None))),
            ("z", Ok(report(true, 6, "bb", Some(3.0)))),
        ]);
        let merged = merged.unwrap();
        assert!(
            !merged.synced,
            "one that has not read the cluster is no answer"
        );
        assert_eq!(merged.problems, std::slice::from_ref(&problem));
        assert_eq!(merged.authority.ends_seconds, Some(5));
        assert_eq!(merged.authority.roots.len(), 2);
        assert_eq!(merged.unmeshed.map(|it| it.seconds_ago), Some(3.0));
    }

    #[test]
    fn of_answers_that_all_have_the_first_is_taken() {
        let answers = [Err(anyhow!("one")), Ok(2), Ok(3)];
        assert_eq!(first(answers.into_iter()).unwrap(), 2);
        let answers = [Err::<u8, _>(anyhow!("one")), Err(anyhow!("two"))];
        assert_eq!(first(answers.into_iter()).unwrap_err().to_string(), "one");
    }
}
