//! The life of one pod: from a launcher's request to its last process.
//!
//! Under `run::holder`, one task per launcher connection. The connection is
//! the pod's lease: when the launcher is gone, however it ended, so is the pod.

use std::{collections::BTreeMap, ffi::OsString, io, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep_until};

use super::{
    capture::Capture,
    connection::Connection,
    control,
    network::PodNetwork,
    processes::kill_all,
    proxy::{self, Plan, Proxy},
    readiness::{self, Readiness},
    state::Holder,
};
use crate::{
    clock::Wall,
    run::{
        mesh::file_name,
        protocol::{Ask, Join, Place, Tell, build},
    },
};

/// For what is in flight after the program has ended; as long as a pod's
/// default `terminationGracePeriodSeconds`.
const GRACE: Duration = Duration::from_secs(30);
/// A token is good for an hour.
const TOKEN_RENEWAL: Duration = Duration::from_secs(1800);

/// What only a live pod has.
#[derive(Debug)]
struct Pod {
    name: String,
    /// Its token is somebody else's.
    has_token: bool,
    network: PodNetwork,
    proxy: Option<Proxy>,
    capture: Option<Capture>,
    readiness: Readiness,
    /// Probes count from here on.
    has_started: bool,
}

/// Until the launcher has gone.
pub(crate) async fn live(holder: &Holder, join: Join, connection: &mut Connection) {
    if let Err(error) = story(holder, join, connection).await {
        connection.say(&Tell::Refused(format!("{error:#}"))).await;
    }
}

async fn story(holder: &Holder, join: Join, connection: &mut Connection) -> anyhow::Result<()> {
    check(holder, &join)?;
    holder.admit(&join)?;
    let network = holder
        .plug(&join.pod)
        .inspect_err(|_| holder.remove(&join.pod, None))?;
    let mut pod = Pod {
        name: join.pod.clone(),
        has_token: join.token_file.is_some(),
        network,
        proxy: None,
        capture: None,
        readiness: Readiness::default(),
        has_started: false,
    };
    let prepared = prepare(holder, &join, &mut pod, connection).await;
    let (result, grace) = match prepared {
        Ok(()) => (Ok(()), accompany(holder, &mut pod, connection).await),
        Err(error) => (Err(error), Duration::ZERO),
    };
    remove(holder, pod, grace).await;
    connection.say(&Tell::Gone).await;
    result
}

fn check(holder: &Holder, join: &Join) -> anyhow::Result<()> {
    if join.build != build() {
        bail!("this mesh runs version {}; end its pods first", build());
    }
    let is_name = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    match join.pod.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {}
        _ => bail!(
            "--pod {}: not NAMESPACE/NAME of lower-case letters, digits and dashes",
            join.pod
        ),
    }
    if join
        .manifests
        .as_ref()
        .is_some_and(|it| it.canonicalize().ok().as_ref() != Some(&holder.options.manifests))
    {
        bail!(
            "--manifests: this mesh already reads {}",
            holder.options.manifests.display()
        );
    }
    if join.trust_domain.is_some() && join.trust_domain != holder.options.trust_domain {
        bail!("--trust-domain: this mesh already has another; end its pods first");
    }
    if join.control_plane.is_some() && join.control_plane != holder.options.control_plane {
        bail!("--control-plane: this mesh already uses another; end its pods first");
    }
    Ok(())
}

/// Ends early when the launcher goes.
async fn prepare(
    holder: &Holder,
    join: &Join,
    pod: &mut Pod,
    connection: &mut Connection,
) -> anyhow::Result<()> {
    if let Some(live) = holder.facts(&pod.name) {
        pod.readiness = live.readiness().map_err(anyhow::Error::msg)?;
    }
    if let Some(file) = &join.capture {
        pod.capture = Some(holder.capture(&pod.network, file)?);
    }
    if join.mesh {
        let (asks, answers) = connection.split();
        let start = async {
            if holder.options.control_plane.is_none() {
                control::ready(&holder.mesh).await?;
            }
            let plan = plan(holder, join, pod)?;
            let mut proxy = Proxy::start(plan).await?;
            let ready = proxy
                .ready(|what| answers.try_say(&Tell::Waiting(what)))
                .await;
            anyhow::Ok((proxy, ready))
        };
        let (proxy, ready) = tokio::select! {
            started = start => started?,
            _ = asks.gone() => bail!("the launcher has gone"),
        };
        pod.proxy = Some(proxy);
        ready?;
    }
    connection.say(&Tell::Ready(place(holder, pod))).await;
    Ok(())
}

/// Until the program has ended; how long its proxy may still work.
async fn accompany(holder: &Holder, pod: &mut Pod, connection: &mut Connection) -> Duration {
    let mut renewal = Instant::now() + TOKEN_RENEWAL;
    loop {
        let probing = readiness::Place {
            network: &pod.network.namespace,
            proxy: pod.proxy.as_ref().and_then(Proxy::pid),
        };
        let tended = async {
            match &mut pod.proxy {
                Some(proxy) => proxy.tend().await,
                None => std::future::pending().await,
            }
        };
        let probed = async {
            match pod.has_started {
                true => pod.readiness.changed(probing).await,
                false => std::future::pending().await,
            }
        };
        let asked = tokio::select! {
            () = tended => continue,
            () = probed => {
                let is_ready = pod.readiness.is_ready();
                tracing::info!(pod = pod.name, is_ready, "readiness probes");
                holder.change(&pod.name, |live| live.ready = is_ready);
                continue;
            }
            () = sleep_until(renewal) => {
                renewal += TOKEN_RENEWAL;
                if !pod.has_token
                    && let Err(error) = holder.write_token(&pod.name)
                {
                    tracing::error!(%error, pod = pod.name, "token not renewed");
                }
                continue;
            }
            asked = connection.next() => asked,
        };
        match asked {
            Some(Ask::Started) => {
                pod.has_started = true;
                pod.readiness.begin();
                let is_ready = pod.readiness.is_ready();
                holder.change(&pod.name, |live| live.ready = is_ready);
            }
            Some(Ask::Draining) => {
                let now = now();
                holder.change(&pod.name, |live| live.deleted = Some(now));
                if let Some(proxy) = &pod.proxy {
                    proxy.drain().await;
                }
            }
            Some(Ask::Ended) => return GRACE,
            Some(Ask::Join(_) | Ask::Map) => {}
            // Killed: nobody is left to wait.
            None => return Duration::ZERO,
        }
    }
}

async fn remove(holder: &Holder, mut pod: Pod, grace: Duration) {
    let now = now();
    holder.change(&pod.name, |live| {
        live.ready = false;
        live.deleted.get_or_insert(now);
    });
    let spared = pod.proxy.as_ref().and_then(Proxy::pid);
    if let Err(error) = kill_all(&pod.network.namespace, spared).await {
        tracing::error!(%error, pod = pod.name, "the program is still there");
    }
    if let Some(mut proxy) = pod.proxy.take() {
        proxy.end(grace).await;
    }
    if let Err(error) = kill_all(&pod.network.namespace, None).await {
        tracing::error!(%error, pod = pod.name, "the pod is still there");
    }
    holder.remove(&pod.name, Some(&pod.network));
}

fn place(holder: &Holder, pod: &Pod) -> Place {
    Place {
        user_namespace: PathBuf::from(format!("/proc/{}/ns/user", std::process::id())),
        network_namespace: proxy::path_of(&pod.network.namespace),
        hosts: holder.mesh.pod(&pod.name).join("hosts"),
        hostname: pod
            .name
            .split_once('/')
            .map_or(pod.name.as_str(), |(_, name)| name)
            .to_owned(),
        holder: holder.mesh.holder_socket(),
    }
}

fn plan(holder: &Holder, join: &Join, pod: &Pod) -> anyhow::Result<Plan> {
    let (namespace, name) = pod.name.split_once('/').context("checked before")?;
    let live = holder.facts(&pod.name).context("admitted before")?;
    let directory = holder.mesh.pod(&pod.name);
    let admin = holder.mesh.admin_socket(live.addresses.index());
    let state = directory.join("state");
    make_private(&state)?;
    let any = if live.addresses.all().iter().any(std::net::IpAddr::is_ipv6) {
        "[::]"
    } else {
        "0.0.0.0"
    };
    let mut knobs: BTreeMap<&'static str, OsString> = [
        ("WEFT_POD_NAMESPACE", namespace.into()),
        ("WEFT_POD_NAME", name.into()),
        ("WEFT_POD_UID", live.uid.into()),
        ("WEFT_SERVICE_ACCOUNT", live.service_account.into()),
        ("WEFT_STATE_DIR", state.into()),
        ("WEFT_ADMIN_SOCKET", admin.clone().into()),
        ("WEFT_PROXY_MARK", proxy::MARK.to_string().into()),
    ]
    .into();
    knobs.extend(control_knobs(holder, join)?);
    if let Some(trust_domain) = &holder.options.trust_domain {
        knobs.insert("WEFT_TRUST_DOMAIN", trust_domain.into());
    }
    for (knob, port) in [
        ("WEFT_OUTBOUND_LISTEN", 15001),
        ("WEFT_INBOUND_LISTEN", 15006),
        ("WEFT_METRICS_LISTEN", 15020),
        ("WEFT_HEALTH_LISTEN", 15021),
    ] {
        knobs.insert(knob, format!("{any}:{port}").into());
    }
    Ok(Plan {
        binary: super::sibling("weft-proxy")?,
        namespace: proxy::path_of(&pod.network.namespace),
        address: *live
            .addresses
            .all()
            .first()
            .context("a pod has an address")?,
        knobs,
        excluded_inbound: live.excluded_inbound,
        excluded_outbound: live.excluded_outbound,
        admin,
        log: holder.mesh.log(&file_name(&pod.name)),
    })
}

/// Where the control plane is, whom to trust as such, and how to prove the pod
/// to it: what the mesh's directory holds, unless the launcher named others.
fn control_knobs(holder: &Holder, join: &Join) -> anyhow::Result<[(&'static str, OsString); 3]> {
    let control = match &holder.options.control_plane {
        Some(address) => address.clone(),
        None => format!("unix:{}", holder.mesh.control_socket().display()),
    };
    let roots = match &join.trust_bundle {
        Some(file) => file.clone(),
        None => holder.mesh.state().join("root.pem"),
    };
    if !roots.is_file() {
        bail!(
            "{}: no roots to tell the control plane by; name them with --trust-bundle",
            roots.display()
        );
    }
    let token = match &join.token_file {
        Some(file) => file.clone(),
        None => {
            holder.write_token(&join.pod)?;
            holder.mesh.pod(&join.pod).join("token")
        }
    };
    Ok([
        ("WEFT_CONTROL_ADDRESS", control.into()),
        ("WEFT_TOKEN_FILE", token.into()),
        ("WEFT_TRUST_BUNDLE_FILE", roots.into()),
    ])
}

pub(crate) fn make_private(directory: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// RFC 3339.
fn now() -> String {
    let seconds = Wall::System.seconds();
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|it| k8s_openapi::jiff::Timestamp::from_second(it).ok());
    time.unwrap_or_default().to_string()
}
