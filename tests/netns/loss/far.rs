//! A control plane that is reached over TCP, in a pod of its own, and packets to
//! it that vanish: nobody is told by a reset.

use std::{os::unix::net::UnixStream, process::Command};

use tokio::time::Instant;
use weft_tests::{
    programs,
    traffic::{self, Load},
    wait,
    world::{self, Pod, Program, World},
};

use super::{PORT, Shop, metric, ms};
use crate::lost::Lost;

const CONTROL: u16 = 15010;
const ADDRESS: &str = "10.244.77.1";

/// The world's control plane, as an operator would start it somewhere else.
fn control_plane(world: &World) -> Pod {
    world.write_manifest(
        "control-plane.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: weft-control-plane-0, namespace: weft-system}}\nspec: {{containers: [{{name: it, image: it}}]}}\nstatus: {{podIPs: [{{ip: {ADDRESS}}}]}}\n"
        ),
    );
    let directory = world.directory().display();
    let binary = programs::directory().join("weft-control-plane");
    world
        .pod("weft-system/weft-control-plane-0")
        .flag("--no-mesh")
        .option("--control-plane", format!("{ADDRESS}:{CONTROL}"))
        .port(CONTROL)
        .run([
            &binary.display().to_string(),
            "--source",
            &format!("files:{directory}/manifests"),
            "--source",
            &format!("files:{directory}/generated"),
            "--state-dir",
            &format!("{directory}/state"),
            "--status-socket",
            &format!("{directory}/status.sock"),
            "--listen",
            &format!("0.0.0.0:{CONTROL}"),
        ])
}

#[test]
fn packets_to_the_control_plane_that_vanish_cost_nothing_and_are_noticed_within_two_heartbeats() {
    if !world::possible() {
        return;
    }
    let world = World::with(
        true,
        &world::service("shop/web", &[PORT]),
        &[("WEFT_HEARTBEAT", "500ms")],
    );
    let _control = control_plane(&world);
    let shop = Shop::of(world);
    let connected = || {
        let status = shop.world.status();
        let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
        proxies.iter().any(|it| it["pod"] == "shop/client-0")
    };
    let (tally, ()) = traffic::during(&shop.client, &Load::new(shop.web()), || {
        // The interval is known from the first heartbeat on.
        metric(&shop.client, "weft_control_heartbeats_total", |it| {
            it >= 1.0
        });
        assert!(connected());
        let silence = format!("tcp sport {CONTROL} drop; tcp dport {CONTROL}");
        {
            let _lost = Lost::of(&shop.client, &silence);
            let began = Instant::now();
            metric(&shop.client, "weft_control_stream_open", |it| it == 0.0);
            // Two heartbeats are one second; the rest is for a machine that is busy.
            assert!(began.elapsed() < ms(5000), "{:?}", began.elapsed());
            let told = shop.world.log("shop.client-0");
            assert!(told.contains("silent for two heartbeats"), "{told}");
            metric(&shop.client, "weft_control_age_seconds", |it| it > 1.0);
            // The other side notices as well: nothing is acknowledged.
            wait::until("the proxy to be missed", || (!connected()).then_some(()));
            let change = "apiVersion: weft.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: web, namespace: shop}\nspec:\n  targetRefs: [{group: '', kind: Service, name: web}]\n  limits: {requests: 4321}\n";
            shop.world.write_manifest("policy.yaml", change);
        }
        metric(&shop.client, "weft_control_stream_open", |it| it == 1.0);
        wait::until("the change that was missed", || {
            let dump = traffic::dump(&shop.client).to_string();
            dump.contains("4321").then_some(())
        });
        metric(&shop.client, "weft_control_age_seconds", |it| it < 1.0);
        assert!(connected());
    });
    tally.assert_flawless();
}

#[test]
fn a_mesh_whose_control_plane_is_another_needs_its_roots_and_a_token() {
    if !world::possible() {
        return;
    }
    let world = World::new(&world::namespace("shop"));
    let elsewhere = tempfile::tempdir().unwrap();
    let path = |name: &str| elsewhere.path().join(name).display().to_string();
    let mesh = world.directory().display();
    let socket = format!("unix:{}", path("control.sock"));
    let mut command = Command::new(programs::directory().join("weft-control-plane"));
    command
        .args(["--source", &format!("files:{mesh}/manifests")])
        .args(["--source", &format!("files:{mesh}/generated")])
        .args(["--state-dir", &path("state"), "--listen", &socket])
        .args(["--trust-domain", "far.example"])
        .args(["--status-socket", &path("status.sock")]);
    let _control = Program::start("weft-control-plane", command);
    wait::until("the control plane", || {
        UnixStream::connect(elsewhere.path().join("control.sock")).ok()
    });
    // Without either, what there is in the mesh's directory counts: nothing.
    let mut bare = world.weft();
    bare.args(["run", "--mesh"]).arg(world.directory());
    bare.args(["--pod", "shop/bare-0", "--control-plane", &socket]);
    bare.args(["--trust-domain", "far.example", "--", "true"]);
    let bare = Program::start("weft run", bare).finished();
    assert!(!bare.status.success());
    assert!(
        bare.stderr().contains("--trust-bundle"),
        "{}",
        bare.stderr()
    );

    let mut token = world.weft();
    token.args([
        "token",
        "--pod",
        "shop/web-0",
        "--state-dir",
        &path("state"),
    ]);
    let token = Program::start("weft token", token).finished().success();
    std::fs::write(path("token"), token).unwrap();
    let pod = world
        .pod("shop/web-0")
        .option("--control-plane", &socket)
        .option("--trust-domain", "far.example")
        .option("--trust-bundle", path("state/root.pem"))
        .option("--token-file", path("token"))
        .run(["sleep", "infinity"]);
    metric(&pod, "weft_control_stream_open", |it| it == 1.0);
}
