//! `weft status`: asks a control plane and prints the answer.
//!
//! The JSON is the control plane's own; the table is for people. Reads only.

use std::{fmt::Write as _, process::ExitCode};

use super::asking::{self, Output, Whom};
use crate::report::{Proxy, Report};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    whom: Whom,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let report: Report = asking::block_on(arguments.whom.ask("/status"))?;
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

fn span(seconds: f64) -> String {
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
    use crate::report::{Certificate, Problem, Reject, Resource};

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
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
