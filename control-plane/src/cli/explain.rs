//! `weft explain`: what the mesh would do with a request, and why.
//!
//! Asks a control plane, or reads a directory of manifests, for what the
//! proxies concerned are told, and hands it to the proxy's own code (`decide`).
//! Decides nothing itself and sends nothing.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Uri;
use serde::Serialize;
use tokio::sync::mpsc;
use weft_proxy::decide::{self, Inbound, Outbound, Refusal, Request, Share, Turn};

use super::asking::{self, Output, Whom};
use crate::{
    index::Index,
    model::Name,
    report::{Called, Explained},
    serve::explain,
    sources::files,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pod that calls, NAMESPACE/POD
    #[arg(long, value_name = "NAMESPACE/POD", value_parser = pod)]
    from: Name,
    /// What it calls: `http://NAME.NAMESPACE:PORT/PATH`; namespace and port may be left out, an address stand for the name
    #[arg(long, value_name = "URL")]
    to: Uri,
    /// Method of the request
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// A header of the request, 'Name: value'; repeated
    #[arg(short = 'H', long = "header", value_parser = header)]
    headers: Vec<(String, String)>,
    #[command(flatten)]
    whom: Whom,
    /// Explain a directory of manifests instead of a running mesh
    #[arg(long, value_name = "DIR", conflicts_with_all = asking::NAMES)]
    manifests: Option<PathBuf>,
    /// Trust domain of the identities, with --manifests
    #[arg(long, default_value = "cluster.local", requires = "manifests")]
    trust_domain: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

fn pod(text: &str) -> Result<Name, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(Name::new(namespace, name))
        }
        _ => Err("a pod is NAMESPACE/POD".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is 'Name: value'")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// All that is known of one request.
#[derive(Debug, Serialize)]
struct Explanation {
    from: String,
    /// What the caller proves; `None`: it has no proxy, so it comes in plaintext.
    identity: Option<String>,
    outbound: Outbound,
    inbound: Vec<Verdict>,
    /// Further pods that may be called.
    left_out: usize,
}

#[derive(Debug, Serialize)]
struct Verdict {
    pod: String,
    port: u16,
    #[serde(flatten)]
    verdict: Inbound,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let explanation = asking::block_on(explanation(arguments))?;
    asking::print(&match arguments.output {
        Output::Json => serde_json::to_string_pretty(&explanation)? + "\n",
        Output::Table => text(&explanation)?,
    })
}

async fn explanation(arguments: &Arguments) -> anyhow::Result<Explanation> {
    let (host, port) = destination(&arguments.to)?;
    let explained = match &arguments.manifests {
        Some(directory) => {
            let index = read(directory.clone()).await?;
            let domain = &arguments.trust_domain;
            explain::offline(&index, domain, &arguments.from, host, port)?
        }
        None => {
            let from = &arguments.from;
            let target = format!("/explain?from={from}&host={host}&port={port}");
            Box::pin(arguments.whom.ask(&target)).await?
        }
    };
    let target = arguments.to.path_and_query();
    let mut headers = arguments.headers.clone();
    if headers.iter().all(|(name, _)| name != "host") {
        let authority = arguments.to.authority();
        let authority = authority.map(ToString::to_string).unwrap_or_default();
        headers.insert(0, ("host".to_owned(), authority));
    }
    let request = Request {
        method: arguments.method.clone(),
        target: target.map_or_else(|| "/".to_owned(), ToString::to_string),
        headers,
    };
    decided(&explained, &request)
}

fn destination(to: &Uri) -> anyhow::Result<(&str, u16)> {
    let Some(host) = to.host() else {
        bail!("--to: a URL has a host: http://cart.shop/path");
    };
    let usual = match to.scheme_str() {
        None | Some("http" | "grpc") => 80,
        // The application's own TLS, of which the mesh sees nothing but bytes.
        Some(other) => bail!("--to: {other} is not http: to the mesh it is opaque bytes"),
    };
    Ok((host, to.port_u16().unwrap_or(usual)))
}

async fn read(directory: PathBuf) -> anyhow::Result<Index> {
    let shown = directory.display().to_string();
    if !directory.is_dir() {
        bail!("--manifests: {shown} is no directory");
    }
    let (sender, mut updates) = mpsc::channel(1);
    let watching = files::watch(directory, None, sender);
    let first = async {
        tokio::select! {
            update = updates.recv() => update,
            _ended = watching => None,
        }
    };
    let update = first
        .await
        .with_context(|| format!("--manifests: {shown} can't be read"))?;
    if let Some(problem) = update.problems.first() {
        bail!(
            "{}: {}: {}; {}",
            problem.file,
            problem.field,
            problem.message,
            problem.remedy
        );
    }
    let mut index = Index::new(&[]);
    for event in update.events {
        index.apply(event);
    }
    Ok(index)
}

fn decided(explained: &Explained, request: &Request) -> anyhow::Result<Explanation> {
    let outbound = decide::outbound(
        &STANDARD.decode(&explained.state)?,
        explained.address,
        request,
    )?;
    let verdict = |called: &Called| -> anyhow::Result<Verdict> {
        let state = STANDARD.decode(&called.state)?;
        let identity = explained.identity.as_deref();
        Ok(Verdict {
            pod: called.pod.clone(),
            port: called.port,
            verdict: decide::inbound(&state, called.port, identity, request)?,
        })
    };
    // What no rule leads to is not asked.
    let reached = |called: &&Called| {
        let endpoints = outbound.backends.iter().flat_map(|it| &it.endpoints);
        let used = endpoints.filter(|it| it.turn != Turn::Never);
        let mut endpoints = used.filter(|it| it.pod == called.pod);
        endpoints.any(|it| it.address.port() == called.port)
    };
    Ok(Explanation {
        from: explained.from.clone(),
        identity: explained.identity.clone(),
        inbound: explained
            .called
            .iter()
            .filter(reached)
            .map(verdict)
            .collect::<Result<_, _>>()?,
        outbound,
        left_out: explained.left_out,
    })
}

fn text(of: &Explanation) -> Result<String, std::fmt::Error> {
    let mut to = String::new();
    let identity = of.identity.as_deref();
    let identity = identity.unwrap_or("nobody: it has no proxy, and comes in plaintext");
    writeln!(to, "caller    {} as {identity}", of.from)?;
    write_outbound(&of.outbound, &mut to)?;
    for verdict in &of.inbound {
        write!(to, "verdict   {}:{} ", verdict.pod, verdict.port)?;
        match (&verdict.verdict.refused, &verdict.verdict.allowed_by) {
            (Some(refusal), _) => write_refusal(refusal, &mut to)?,
            (None, Some(rule)) => writeln!(to, "allows it: {rule}")?,
            (None, None) => writeln!(to, "allows it: no policy speaks")?,
        }
    }
    if of.left_out > 0 {
        writeln!(to, "          and {} more pods", of.left_out)?;
    }
    Ok(to)
}

fn write_outbound(outbound: &Outbound, to: &mut String) -> std::fmt::Result {
    write!(to, "address   {}", outbound.meaning)?;
    if let Some(destination) = &outbound.destination {
        write!(to, " {destination}")?;
    }
    match outbound.protocol {
        Some(protocol) => writeln!(to, ", protocol {protocol}")?,
        None => writeln!(to)?,
    }
    match outbound.meaning {
        "unmeshed" | "unknown" => writeln!(to, "          passes through as plain TCP")?,
        "outside" => writeln!(to, "          outside of the mesh: passes through unasked")?,
        _ => {}
    }
    if let Some(refusal) = &outbound.refused {
        write!(to, "refused   ")?;
        write_refusal(refusal, to)?;
    }
    if let Some(rule) = &outbound.rule {
        writeln!(to, "route     {} rule {}", rule.route, rule.index)?;
    } else if outbound.meaning == "service" && !outbound.routed {
        writeln!(to, "route     none is attached")?;
    }
    if let Some(path) = &outbound.judged_path {
        writeln!(to, "path      judged and forwarded as {path}")?;
    }
    let sum: u64 = outbound
        .backends
        .iter()
        .map(|it| u64::from(it.weight))
        .sum();
    for share in &outbound.backends {
        write_share(share, sum, to)?;
    }
    Ok(())
}

fn write_share(share: &Share, sum: u64, to: &mut String) -> std::fmt::Result {
    let percent = 100.0 * f64::from(share.weight) / sum.max(1) as f64;
    let name = share.backend.as_deref().unwrap_or("none");
    writeln!(to, "backend   {name} gets {percent:.0} %")?;
    for words in &share.filters {
        writeln!(to, "          {words}")?;
    }
    if let Some(why) = &share.invalid {
        writeln!(to, "          its share is answered 500: {why}")?;
    } else if let Some(Refusal { reason, help, .. }) = &share.unreachable {
        writeln!(to, "          its share is answered 503: {reason}: {help}")?;
    }
    if let Some(seconds) = share.stays_seconds {
        writeln!(
            to,
            "          a caller stays with one endpoint until it was silent for {seconds} s"
        )?;
    }
    for endpoint in &share.endpoints {
        let pod = if endpoint.pod.is_empty() {
            "no pod"
        } else {
            &endpoint.pod
        };
        let security = match &endpoint.identity {
            Some(identity) => format!("mTLS to {identity}"),
            None => "plaintext: it has no proxy".to_owned(),
        };
        let (state, address) = (endpoint.state, endpoint.address);
        let turn = match endpoint.turn {
            Turn::First => "",
            Turn::Later => ", after those nearer",
            Turn::Never => ", gets nothing of this caller",
        };
        writeln!(to, "          {state:<8} {pod} {address} {security}{turn}")?;
    }
    Ok(())
}

fn write_refusal(refusal: &Refusal, to: &mut String) -> std::fmt::Result {
    let Refusal {
        reason,
        http_status,
        help,
        policy,
        ..
    } = refusal;
    write!(to, "refuses it: {reason} ({http_status}): {help}")?;
    match policy {
        Some(policy) => writeln!(to, " By {policy}."),
        None => writeln!(to),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const SHOP: &str = include_str!("explain/shop.yaml");

    async fn told(to: &str, more: &[&str]) -> String {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("shop.yaml"), SHOP).unwrap();
        let manifests = directory.path().display().to_string();
        let fixed = [
            "explain",
            "--from",
            "shop/web-0",
            "--to",
            to,
            "--manifests",
            &manifests,
        ];
        let arguments = fixed.iter().chain(more);
        let arguments = Parsed::try_parse_from(arguments).unwrap().arguments;
        match explanation(&arguments).await {
            Ok(explanation) => text(&explanation).unwrap(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[derive(Debug, clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[tokio::test]
    async fn a_request_is_followed_from_the_route_to_the_verdict() {
        let text = told("http://cart.shop/items/1", &[]).await;
        for part in [
            "caller    shop/web-0 as spiffe://cluster.local/ns/shop/sa/web\n",
            "address   service shop/cart:80, protocol http1\n",
            "route     shop/cart rule 0\n",
            "backend   shop/cart-a:80 gets 90 %\n",
            "ready    shop/cart-a-0 10.1.0.2:8080 mTLS to spiffe://cluster.local/ns/shop/sa/cart\n",
            "backend   none gets 10 %\n          its share is answered 500: ",
            "verdict   shop/cart-a-0:8080 allows it: shop/cart#0\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[tokio::test]
    async fn a_refusal_names_its_rule_on_either_side() {
        let text = told("http://cart.shop/nothing", &[]).await;
        assert!(
            text.contains("refused   refuses it: no-route (404)"),
            "{text}"
        );
        assert!(!text.contains("verdict"), "{text}");
        let text = told("http://cart.shop/items/1", &["-X", "DELETE"]).await;
        let part = "verdict   shop/cart-a-0:8080 refuses it: access-denied (403)";
        assert!(
            text.contains(part) && text.contains("By shop/cart#1."),
            "{text}"
        );
    }

    #[tokio::test]
    async fn headers_and_judged_paths_are_part_of_it() {
        let text = told("http://cart.shop/%63anary", &["-H", "X-Canary: 1"]).await;
        for part in [
            "route     shop/cart rule 1\n",
            "judged and forwarded as /canary\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[tokio::test]
    async fn what_filters_do_is_said_with_the_backend() {
        let text = told("http://cart.shop/old/1", &[]).await;
        let expected = "backend   shop/cart-a:80 gets 100 %\n\
            \x20         request header x-set is set\n\
            \x20         request header x-add is added to\n\
            \x20         request header x-old is removed\n\
            \x20         the path's prefix becomes /new/\n\
            \x20         a copy of 25 in 100 goes to shop/cart:80\n";
        assert!(text.contains(expected), "{text}");
        let text = told("http://cart.shop/moved", &[]).await;
        assert!(
            text.contains("301 instead of a backend's answer\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn whom_a_service_keeps_from_this_caller_is_said() {
        let text = told("http://cache.shop/", &[]).await;
        for part in [
            "its share is answered 503: no-local-endpoints: ",
            "a caller stays with one endpoint until it was silent for 10800 s\n",
            " shop/cache-0 10.1.0.9:80 mTLS to spiffe://cluster.local/ns/shop/sa/default, gets nothing of this caller\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains("verdict"), "{text}");
    }

    #[tokio::test]
    async fn what_does_not_exist_is_said() {
        let text = told("http://nowhere.shop/", &[]).await;
        assert!(text.starts_with("--to: no service shop/nowhere"), "{text}");
        let text = told("https://cart.shop/", &[]).await;
        assert!(text.contains("opaque bytes"), "{text}");
        let text = told("http://192.0.2.77/", &[]).await;
        assert!(text.contains("address   outside"), "{text}");
    }
}
