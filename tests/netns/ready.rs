//! Readiness probes of a Pod manifest under `weft run`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use weft_tests::{
    traffic::{self, Answer, Application, One},
    wait,
    world::{self, World},
};

const PORT: u16 = 8080;

/// Strict, so that a probe which went by way of the proxy would be refused.
const MANIFESTS: &str = "apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec:
  containers:
  - name: web
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /up, port: http}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, mtls: Strict}
";

#[test]
fn a_pod_is_an_endpoint_while_its_readiness_probe_passes() {
    if !world::possible() {
        return;
    }
    let world = World::new(&(world::service("shop/web", &[PORT]) + MANIFESTS));
    let is_up = Arc::new(AtomicBool::new(false));
    let pod = world.idle("shop/web-0");
    let says = Arc::clone(&is_up);
    let application = Application::start(pod.listen(PORT), move |asked| {
        match asked.path == "/up" && !says.load(Ordering::SeqCst) {
            true => Answer::status(503, "starting"),
            false => Answer::ok("up"),
        }
    });
    let client = world.idle("shop/client-0");
    let web = (client.resolve("web"), PORT).into();
    let status = || {
        let reply = traffic::run(&client, || async move { One::new(web).get("/").await });
        reply.ok().map(|it| it.status)
    };
    let becomes = |wanted| {
        wait::until(&format!("answer {wanted}"), || {
            status().filter(|it| *it == wanted)
        });
    };
    // Its proxy is ready and it has been probed: what lacks is its program.
    wait::until("a probe", || (application.requests() > 0).then_some(()));
    becomes(503);
    is_up.store(true, Ordering::SeqCst);
    becomes(200);
    is_up.store(false, Ordering::SeqCst);
    becomes(503);
}

/// The manifests with another probe.
fn probed_by(probe: &str) -> String {
    let usual = MANIFESTS
        .lines()
        .find(|line| line.contains("readinessProbe"))
        .unwrap();
    let manifests = MANIFESTS.replace(usual.trim(), probe);
    world::service("shop/web", &[PORT]) + &manifests
}

#[test]
fn a_command_sees_what_the_program_sees() {
    if !world::possible() {
        return;
    }
    let switch = tempfile::tempdir().unwrap();
    let file = switch.path().join("up");
    // Its variables, its name, its mounts and its network.
    let script = "test -e $UP && test $(uname -n) = web-0 && grep -q web /etc/hosts && grep -q eth0 /proc/net/dev";
    let probe = format!(
        "readinessProbe: {{exec: {{command: [sh, -c, '{script}']}}, periodSeconds: 1, failureThreshold: 1}}"
    );
    let world = World::new(&probed_by(&probe));
    let pod = world
        .pod("shop/web-0")
        .env("UP", &file.display().to_string())
        .run(["sleep", "infinity"]);
    let _application = Application::start(pod.listen(PORT), |_| Answer::ok("up"));
    let client = world.idle("shop/client-0");
    let web = (client.resolve("web"), PORT).into();
    let becomes = |wanted| {
        wait::until(&format!("answer {wanted}"), || {
            let reply = traffic::run(&client, || async move { One::new(web).get("/").await });
            reply.ok().filter(|it| it.status == wanted)
        })
    };
    becomes(503);
    std::fs::write(&file, "").unwrap();
    becomes(200);
    std::fs::remove_file(&file).unwrap();
    becomes(503);
}
