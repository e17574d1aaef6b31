//! `weft demo` shows what it promises, as root and as an ordinary user, and
//! leaves nothing behind.
//!
//! One at a time: the demo measures times, and two of them would measure each
//! other.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use weft_tests::programs::As;

static ONE: Mutex<()> = Mutex::new(());

#[test]
fn it_shows_every_step_as_root() {
    shows_every_step(As::Caller);
}

#[test]
fn it_shows_every_step_as_an_ordinary_user() {
    shows_every_step(As::User);
}

fn shows_every_step(user: As) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = directories();
    let shown = user
        .weft()
        .args(["demo", "--output", "json"])
        .output()
        .expect("weft can be run");
    let said = String::from_utf8_lossy(&shown.stdout);
    let summary: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{shown:?}"));
    assert_eq!(summary["ok"], true, "{said}");
    assert_eq!(shown.status.code(), Some(0));
    assert!(
        summary["seconds"].as_f64().expect("a number") < 90.0,
        "{said}"
    );
    let steps = summary["steps"].as_array().expect("a list");
    let names: Vec<&str> = steps
        .iter()
        .map(|it| it["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        names,
        [
            "traffic",
            "shop",
            "canary",
            "breaker",
            "retries",
            "access",
            "control-plane",
            "certificates"
        ]
    );
    assert_eq!(directories(), before);
}

#[test]
fn interrupted_it_says_so_and_leaves_nothing() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = directories();
    let mut demo = As::Caller
        .weft()
        .arg("demo")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("canary")));
    let directory = directories().difference(&before).next().cloned().unwrap();
    kill(Pid::from_raw(demo.id().cast_signed()), Signal::SIGINT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(demo.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(
        rest.iter()
            .any(|line| line.contains("\"stopped_by_signal\": true")),
        "{rest:?}"
    );
    assert_eq!(directories(), before);
    let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap();
    let processes = String::from_utf8_lossy(&processes.stdout);
    assert!(
        !processes.contains(directory.to_str().unwrap()),
        "{processes}"
    );
}

/// Of meshes that demos have made.
fn directories() -> BTreeSet<PathBuf> {
    let all = fs::read_dir(std::env::temp_dir())
        .expect("there is one")
        .flatten();
    let ours = all.filter(|it| it.file_name().to_string_lossy().starts_with("weft-demo-"));
    ours.map(|it| it.path()).collect()
}
