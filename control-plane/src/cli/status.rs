//! `weft status`: asks a control plane and prints the answer.
//!
//! The JSON is the control plane's own; the table is for people. Reads only.

use std::{fmt::Write as _, process::ExitCode};

use super::asking::{self, Output, Whom};
use crate::report::{Proxy, Report};

/// Lines of pods that are missing; `weft check` has them all.
const MOST: usize = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    whom: Whom,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (report, _) = asking::block_on(arguments.whom.report())?;
    asking::print(&match arguments.output {
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        Output::Table => table(&report),
    })
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    let _never_fails = write_table(report, &mut text);
    text
}

fn write_table(report: &Report, to: &mut String) -> std::fmt::Result {
    let synced = if report.synced {
        ""
    } else {
        " (the source has not been read yet)"
    };
    writeln!(
        to,
        "mesh {}{synced}: {} proxies",
        report.trust_domain,
        report.proxies.len()
    )?;
    for replica in report.replicas.iter().filter(|it| !it.name.is_empty()) {
        match replica.error.as_str() {
            "" => writeln!(to, "  replica {} {}", replica.name, replica.version)?,
            why => writeln!(
                to,
                "  replica {} did not answer, and its proxies are missing here: {why}",
                replica.name
            )?,
        }
    }
    if !report.proxies.is_empty() {
        writeln!(
            to,
            "\n{:<32} {:>10} {:>9} {:>8} {:>16} VERSION",
            "PROXY", "CONNECTED", "SILENT", "CURRENT", "CERTIFICATE"
        )?;
    }
    for proxy in &report.proxies {
        write_proxy(report, proxy, to)?;
    }
    write_missing(report, to)?;
    if !report.problems.is_empty() {
        writeln!(to, "\nPROBLEMS")?;
    }
    for problem in &report.problems {
        let document = if problem.document == 0 {
            String::new()
        } else {
            format!(" document {}", problem.document)
        };
        let place = [
            &format!("{}{document}", problem.file),
            &problem.object,
            &problem.field,
        ];
        let place: Vec<&str> = place
            .into_iter()
            .map(String::as_str)
            .filter(|it| !it.is_empty())
            .collect();
        writeln!(
            to,
            "  {}: {}\n      {}",
            place.join(", "),
            problem.message,
            problem.remedy
        )?;
    }
    Ok(())
}

/// Pods whose proxies are away, and those that have none.
fn write_missing(report: &Report, to: &mut String) -> std::fmt::Result {
    if !report.not_connected.is_empty() {
        writeln!(to, "\nNOT CONNECTED")?;
    }
    for it in report.not_connected.iter().take(MOST) {
        let says = match it.ready {
            true => "serves by what it has received before",
            false => "not ready",
        };
        writeln!(to, "  {}: {says}", it.pod)?;
    }
    let beyond = report.not_connected.len().saturating_sub(MOST);
    if beyond > 0 {
        writeln!(to, "  and {beyond} more")?;
    }
    let Some(unmeshed) = report.unmeshed.as_ref() else {
        return Ok(());
    };
    if !unmeshed.pods.is_empty() {
        writeln!(to, "\nNOT IN THE MESH, THOUGH ASKED FOR")?;
    }
    for it in unmeshed.pods.iter().take(MOST) {
        writeln!(to, "  {}", it.pod)?;
    }
    let beyond = unmeshed.pods.len().saturating_sub(MOST) + unmeshed.left_out;
    if beyond > 0 {
        writeln!(to, "  and {beyond} more")?;
    }
    Ok(())
}

fn write_proxy(report: &Report, proxy: &Proxy, to: &mut String) -> std::fmt::Result {
    let current = proxy
        .resources
        .iter()
        .filter(|it| it.held == it.newest)
        .count();
    let certificate = report.certificates.iter().find(|it| it.pod == proxy.pod);
    let certificate = certificate.map_or_else(
        || "-".to_owned(),
        |it| match it.expires_seconds {
            left if left > 0 => format!("ends in {}", span(left as f64)),
            _ => "expired".to_owned(),
        },
    );
    writeln!(
        to,
        "{:<32} {:>10} {:>9} {:>8} {:>16} {}",
        proxy.pod,
        span(proxy.connected_seconds),
        span(proxy.silent_seconds),
        format!("{current}/{}", proxy.resources.len()),
        certificate,
        proxy.version
    )?;
    for stale in proxy.resources.iter().filter(|it| it.held != it.newest) {
        let held = if stale.held.is_empty() {
            "nothing"
        } else {
            &stale.held
        };
        writeln!(
            to,
            "    behind on {}: holds {held}, newest {}",
            stale.name, stale.newest
        )?;
    }
    for reject in &proxy.rejects {
        writeln!(
            to,
            "    rejected {} {} ago: {}",
            reject.name,
            span(reject.seconds_ago),
            reject.reason
        )?;
    }
    for denied in &proxy.denied {
        writeln!(to, "    received as deny: {denied}")?;
    }
    Ok(())
}

pub(super) fn span(seconds: f64) -> String {
    match seconds {
        it if it < 60.0 => format!("{it:.1}s"),
        it if it < 3600.0 => format!("{:.0}m", it / 60.0),
        it if it < 172_800.0 => format!("{:.0}h", it / 3600.0),
        it => format!("{:.0}d", it / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Certificate, Disconnected, Problem, Reject, Replica, Resource};

    #[test]
    fn the_table_names_what_is_behind_rejected_and_broken() {
        let stale = Resource {
            name: "service shop/cart".into(),
            held: "01".into(),
            newest: "02".into(),
        };
        let reject = Reject {
            name: "service shop/cart".into(),
            reason: "a bad route".into(),
            ..Reject::default()
        };
        let proxy = Proxy {
            pod: "shop/cart-0".into(),
            resources: vec![stale],
            rejects: vec![reject],
            ..Proxy::default()
        };
        let certificate = Certificate {
            pod: "shop/cart-0".into(),
            expires_seconds: 7200,
            ..Certificate::default()
        };
        let problem = Problem {
            file: "shop.yaml".into(),
            document: 2,
            object: "HTTPRoute shop/cart".into(),
            field: "spec.rules[0]".into(),
            message: "no such backend".into(),
            remedy: "create it".into(),
        };
        let report = Report {
            trust_domain: "cluster.local".into(),
            synced: true,
            proxies: vec![proxy],
            certificates: vec![certificate],
            problems: vec![problem],
            replicas: vec![Replica {
                name: "weft-control-plane-1".into(),
                error: "refused".into(),
                ..Replica::default()
            }],
            not_connected: vec![Disconnected {
                pod: "shop/lost-0".into(),
                ready: true,
            }],
            ..Report::default()
        };
        let text = table(&report);
        for part in [
            "shop/cart-0",
            "0/1",
            "ends in 2h",
            "behind on service shop/cart: holds 01, newest 02",
            "a bad route",
            "shop.yaml document 2, HTTPRoute shop/cart, spec.rules[0]: no such backend",
            "create it",
            "replica weft-control-plane-1 did not answer",
            "shop/lost-0: serves by what it has received before",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
