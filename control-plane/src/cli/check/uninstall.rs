//! What keeps working when the mesh is uninstalled, and until when.
//!
//! A proxy goes on by what it has received, as long as its certificate is good.
//!
//! Pure.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::bail;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::{cli::status::span, report::Report};

/// A pod with a proxy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Working {
    /// "namespace/pod".
    pod: String,
    /// RFC 3339; `None`: not known, since its proxy is not connected.
    until: Option<String>,
    seconds: Option<i64>,
}

/// Those whose time is over first come first.
///
/// # Errors
/// When the list would not be whole.
pub(super) fn working(report: &Report, now_seconds: u64) -> anyhow::Result<Vec<Working>> {
    let silent = report.replicas.iter().find(|it| !it.error.is_empty());
    if let Some(it) = silent {
        bail!(
            "replica {} did not answer, and its pods would be missing: {}",
            it.name,
            it.error
        );
    }
    if !report.synced {
        bail!("the control plane has not read its source yet");
    }
    let mut pods: BTreeMap<&str, Option<i64>> = BTreeMap::new();
    let away = report.not_connected.iter().map(|it| it.pod.as_str());
    pods.extend(away.map(|pod| (pod, None)));
    let shown = report.proxies.iter();
    pods.extend(shown.map(|it| (it.pod.as_str(), Some(it.certificate_expires_seconds))));
    // Renewed since it connected, or connected no longer.
    for it in &report.certificates {
        if let Some(seconds) = pods.get_mut(it.pod.as_str()) {
            *seconds = (*seconds).max(Some(it.expires_seconds));
        }
    }
    let now = i64::try_from(now_seconds).unwrap_or(i64::MAX);
    let until = |seconds: i64| Timestamp::from_second(now.saturating_add(seconds)).ok();
    let pods = pods.into_iter().map(|(pod, seconds)| Working {
        pod: pod.to_owned(),
        until: seconds.and_then(until).map(|it| it.to_string()),
        seconds,
    });
    let mut pods: Vec<_> = pods.collect();
    pods.sort_by_key(|it| it.seconds);
    Ok(pods)
}

pub(super) fn table(pods: &[Working]) -> String {
    let mut text = String::new();
    let _never_fails = write_table(pods, &mut text);
    text
}

fn write_table(pods: &[Working], to: &mut String) -> std::fmt::Result {
    if pods.is_empty() {
        return writeln!(to, "no pod has a proxy");
    }
    writeln!(
        to,
        "{} pods keep working after an uninstall until their certificates end; new ones are plain",
        pods.len()
    )?;
    for it in pods {
        match (&it.until, it.seconds) {
            (Some(until), Some(seconds)) if seconds > 0 => {
                writeln!(to, "  {until}  in {:>5}  {}", span(seconds as f64), it.pod)?;
            }
            (Some(until), _) => writeln!(to, "  {until}  over      {}", it.pod)?,
            (None, _) => writeln!(to, "  not known: its proxy is not connected  {}", it.pod)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Certificate, Disconnected, Proxy, Replica};

    fn report() -> Report {
        let proxy = |pod: &str, seconds| Proxy {
            pod: pod.into(),
            certificate_expires_seconds: seconds,
            ..Proxy::default()
        };
        let certificate = |pod: &str, seconds| Certificate {
            pod: pod.into(),
            expires_seconds: seconds,
            ..Certificate::default()
        };
        let away = |pod: &str| Disconnected {
            pod: pod.into(),
            ready: true,
        };
        Report {
            synced: true,
            proxies: vec![proxy("shop/a", 7200), proxy("shop/b", 3600)],
            not_connected: vec![away("shop/lost"), away("shop/known")],
            certificates: vec![
                certificate("shop/a", 36_000),
                certificate("shop/known", 60),
                // Of a pod that is gone.
                certificate("shop/gone", 60),
            ],
            ..Report::default()
        }
    }

    #[test]
    fn every_pod_with_a_proxy_is_there_with_the_hour_of_its_newest_certificate() {
        let text = table(&working(&report(), 1_800_000_000).unwrap());
        let expected = "4 pods keep working after an uninstall until their certificates end; new ones are plain
  not known: its proxy is not connected  shop/lost
  2027-01-15T08:01:00Z  in    1m  shop/known
  2027-01-15T09:00:00Z  in    1h  shop/b
  2027-01-15T18:00:00Z  in   10h  shop/a
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_list_that_is_not_whole_is_none() {
        let silent = Replica {
            name: "b".into(),
            error: "refused".into(),
            ..Replica::default()
        };
        let report = Report {
            replicas: vec![silent],
            ..report()
        };
        let error = working(&report, 0).unwrap_err().to_string();
        assert!(error.contains("replica b did not answer"), "{error}");
        let unread = Report {
            synced: false,
            ..Report::default()
        };
        assert!(working(&unread, 0).is_err());
    }
}
