//! A scraper's annotations, pointed at the proxy.
//!
//! An unmeshed Prometheus has no identity, so strict mutual TLS and deny-all
//! refuse it at the application's own port. Where the installation says so
//! (`monitoring.applicationMetrics` of the chart), the page that `prometheus.io`
//! annotations name is opened at the proxy's metrics port, and they are changed
//! to lead there; a pod's own `weft.dev/application-metrics` does the same
//! anywhere. Nothing is refused for what the annotations of others say. Pure.

use std::collections::BTreeMap;

use super::{
    annotations::{APPLICATION_METRICS, Form},
    sidecar::METRICS_PORT,
};

const SCRAPE: &str = "prometheus.io/scrape";
const SCHEME: &str = "prometheus.io/scheme";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";

/// Where the proxy serves the page.
const AT_PROXY: &str = "/application/metrics";

/// Reads what `said` asks for, and changes it to lead to the proxy. `is_opened`:
/// for every pod that says that it is scraped.
pub(super) fn rewrite(said: &mut BTreeMap<String, String>, is_opened: bool) {
    let word = |name: &str| said.get(name).map(|it| it.trim());
    let is_scraped = word(SCRAPE) == Some("true");
    if !is_scraped {
        return;
    }
    if word(APPLICATION_METRICS).is_none() {
        // Without a port each declared one is tried, with TLS nobody but the
        // scraper knows whom to trust: both stay the pod's own.
        let (Some(port), None | Some("http")) = (word(PORT), word(SCHEME)) else {
            return;
        };
        let path = word(PATH).unwrap_or("/metrics");
        let page = format!("{port}/{}", path.trim_start_matches('/'));
        if !is_opened || !Form::Page.takes(&page) {
            return;
        }
        said.insert(APPLICATION_METRICS.to_owned(), page);
    }
    said.insert(PORT.to_owned(), METRICS_PORT.to_string());
    said.insert(PATH.to_owned(), AT_PROXY.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        let all = all.iter();
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn rewritten(before: &[(&str, &str)], is_opened: bool) -> BTreeMap<String, String> {
        let mut said = map(before);
        rewrite(&mut said, is_opened);
        let once = said.clone();
        // A pod that was here before comes out the same.
        rewrite(&mut said, is_opened);
        assert_eq!(said, once);
        once
    }

    #[test]
    fn a_scraped_pod_is_scraped_at_its_proxy() {
        for (before, page) in [
            (&[(PORT, "9090")][..], "9090/metrics"),
            (&[(PORT, " 9090 "), (PATH, "stats?all")], "9090/stats?all"),
            (
                &[(PORT, "9090"), (PATH, "/a/b"), (SCHEME, "http")],
                "9090/a/b",
            ),
        ] {
            let after = rewritten(&[before, &[(SCRAPE, "true")]].concat(), true);
            assert_eq!(after[APPLICATION_METRICS], page);
            assert_eq!(after[PORT], "15020");
            assert_eq!(after[PATH], "/application/metrics");
        }
    }

    #[test]
    fn what_a_pod_says_to_the_mesh_holds_whatever_the_installation_says() {
        for is_opened in [true, false] {
            let own = [(APPLICATION_METRICS, "9/x"), (SCRAPE, "true"), (PORT, "80")];
            let after = rewritten(&own, is_opened);
            assert_eq!(after[APPLICATION_METRICS], "9/x");
            assert_eq!((&*after[PORT], &*after[PATH]), ("15020", AT_PROXY));
            // Nobody scrapes by annotation: they are left alone.
            let own = [(APPLICATION_METRICS, "9/x"), (PORT, "80")];
            assert_eq!(rewritten(&own, is_opened), map(&own));
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let asked = [(SCRAPE, "true"), (PORT, "9090")];
        assert_eq!(rewritten(&asked, false), map(&asked));
        for before in [
            &[(SCRAPE, "false"), (PORT, "9090")][..],
            &[(PORT, "9090")],
            &[(SCRAPE, "true")],
            &[(SCRAPE, "true"), (PORT, "http")],
            // The proxy's own page.
            &[(SCRAPE, "true"), (PORT, "15020")],
            &[(SCRAPE, "true"), (PORT, "9090"), (SCHEME, "https")],
        ] {
            assert_eq!(rewritten(before, true), map(before));
        }
    }
}
