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

#[test]
fn a_probe_that_can_not_be_made_is_named_and_hinders_nothing() {
    if !world::possible() {
        return;
    }
    let exec = "readinessProbe: {exec: {command: ['true']}}";
    let probe = MANIFESTS
        .lines()
        .find(|line| line.contains("readinessProbe"))
        .unwrap();
    let manifests = MANIFESTS.replace(probe.trim(), exec);
    let world = World::new(&(world::service("shop/web", &[PORT]) + &manifests));
    let pod = world.idle("shop/web-0");
    pod.launcher()
        .complains("weft: a readinessProbe exec is not made here: it counts as passed");
    let _application = Application::start(pod.listen(PORT), |_| Answer::ok("up"));
    let client = world.idle("shop/client-0");
    let web = (client.resolve("web"), PORT).into();
    wait::until("an answer", || {
        let reply = traffic::run(&client, || async move { One::new(web).get("/").await });
        reply.is_ok_and(|it| it.status == 200).then_some(())
    });
}
