//! The harness itself: a world works, and leaves nothing behind.

use std::{fs, process::Command};

use weft_tests::world::{self, World};

#[test]
fn a_world_carries_requests_shows_what_it_did_and_leaves_nothing_behind() {
    if !world::possible() {
        return;
    }
    let mesh = World::new(&world::service("shop/web", &[8080]));
    let files = mesh.scratch("web");
    fs::write(files.join("hello"), "hello from the shop").unwrap();
    let web = mesh.pod("shop/web-0").port(8080).run([
        "python3",
        "-m",
        "http.server",
        "8080",
        "--directory",
        files.to_str().unwrap(),
    ]);
    let client = mesh.idle("shop/client-0");

    let got = client.output(["curl", "--silent", "--show-error", "http://web:8080/hello"]);
    assert_eq!(got.success(), "hello from the shop");
    let line = web.logs("the request", |line| line["path"] == "/hello");
    assert_eq!(line["kind"], "request");
    assert!(
        client.metrics().sum("weft_traffic_requests_total", &[]) >= 1.0,
        "{}",
        &*client.metrics()
    );
    assert_eq!(mesh.status()["proxies"].as_array().map(Vec::len), Some(2));
    assert!(web.proxy_memory() > 0);
    assert_eq!(web.stop().status.code(), Some(128 + 15));

    let directory = mesh.directory().to_str().unwrap().to_owned();
    drop((mesh, client));
    assert!(!fs::exists(&directory).unwrap());
    let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&processes.stdout).contains(&directory));
}

#[test]
fn without_a_mesh_programs_reach_each_other_by_the_same_names() {
    if !world::possible() {
        return;
    }
    let plain = World::without_mesh(&world::service("shop/web", &[8080]));
    let web = plain.idle("shop/web-0");
    let listener = web.listen(8080);
    let client = plain.idle("shop/client-0");
    let _there = client.connect("web.shop", 8080);
    let (_here, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_canonical(), client.address());
}
