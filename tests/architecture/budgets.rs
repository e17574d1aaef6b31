//! Budgets of size, and habits that no lint holds.

use crate::source::{self, File};

const FOLDERS: [&str; 3] = ["proxy/src", "control-plane/src", "proto/src"];

/// Above, the header must say why ("Over budget: …").
const FILE: usize = 400;
const FILE_HARD: usize = 600;
const FUNCTION: usize = 60;
const FUNCTION_HARD: usize = 80;

fn all() -> Vec<File> {
    FOLDERS
        .iter()
        .flat_map(|folder| source::production(folder))
        .collect()
}

/// Fails with every place at once and what to do about them.
fn hold(wrong: &[String], rule: &str, remedy: &str) {
    assert!(
        wrong.is_empty(),
        "{rule}:\n  {}\n{remedy}",
        wrong.join("\n  ")
    );
}

fn everywhere(found: impl Fn(&str) -> bool + Copy) -> Vec<String> {
    all().iter().flat_map(|file| file.places(found)).collect()
}

#[test]
fn files_stay_within_their_budget() {
    let says_why = |file: &File| file.header().contains("Over budget:");
    let too_long = |file: &&File| {
        let length = file.length();
        length > FILE_HARD || (length > FILE && !says_why(file))
    };
    let files = all();
    let wrong: Vec<_> = files
        .iter()
        .filter(too_long)
        .map(|file| format!("{}: {} lines", file.path, file.length()))
        .collect();
    hold(
        &wrong,
        "production files over 400 lines",
        "Split by what a reader looks for, or say why in the header (`//! Over budget: …`); 600 is the end.",
    );
}

/// Name, line and length of each function, by the brace that closes at its indentation.
fn functions(file: &File) -> Vec<(String, usize)> {
    let lines: Vec<&str> = file.code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let words: Vec<_> = code
            .split_whitespace()
            .take_while(|word| {
                !word.contains('(') || *word == "pub(crate)" || *word == "pub(super)"
            })
            .collect();
        let is_function = words.contains(&"fn") || code.starts_with("fn ");
        let Some(rest) = lines.get(at..).filter(|_| is_function) else {
            continue;
        };
        // A declaration ends before any body begins.
        let ends = |line: &&&str| line.trim_end().ends_with([';', '{', '}']);
        if rest
            .iter()
            .find(ends)
            .is_none_or(|line| line.trim_end().ends_with(';'))
        {
            continue;
        }
        let closes =
            |line: &&str| line.len() - line.trim_start().len() == indent && line.trim() == "}";
        let Some(length) = rest.iter().position(closes) else {
            continue;
        };
        found.push((format!("{}:{}", file.path, at + 1), length + 1));
    }
    found
}

#[test]
fn functions_stay_within_their_budget() {
    let functions: Vec<_> = all().iter().flat_map(functions).collect();
    assert!(functions.len() > 100, "the scan finds functions");
    let mut long: Vec<_> = functions
        .iter()
        .filter(|(_, length)| *length > FUNCTION)
        .collect();
    long.sort_by_key(|(_, length)| std::cmp::Reverse(*length));
    for (place, length) in &long {
        eprintln!("over {FUNCTION} lines: {place}: {length}");
    }
    let wrong: Vec<_> = long
        .iter()
        .filter(|(_, length)| *length > FUNCTION_HARD)
        .map(|(place, length)| format!("{place}: {length} lines"))
        .collect();
    hold(
        &wrong,
        "functions over 80 lines",
        "Give its steps names: a function each.",
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let wrong: Vec<_> = all()
        .iter()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| file.path.clone())
        .collect();
    hold(
        &wrong,
        "production files that don't begin with //!",
        "Say in 3 to 12 lines what it is for, what comes before and after it, what it never does.",
    );
}

#[test]
fn modules_are_files_beside_their_folder() {
    let wrong: Vec<_> = source::tracked()
        .into_iter()
        .filter(|path| path.ends_with("/mod.rs"))
        .collect();
    hold(&wrong, "mod.rs", "Name it foo.rs beside foo/.");
}

#[test]
fn unfinished_work_names_its_issue() {
    let marks = ["TODO", "FIXME", "XXX", "HACK"];
    let mut wrong = Vec::new();
    for path in source::tracked() {
        // This file names the marks.
        if !path.ends_with(".rs") || path.ends_with("architecture/budgets.rs") {
            continue;
        }
        for (at, line) in source::read(&path).lines().enumerate() {
            let is_marked = line
                .split(|letter: char| !letter.is_alphanumeric())
                .any(|word| marks.contains(&word));
            if is_marked && !line.contains("issue #") {
                wrong.push(format!("{path}:{}", at + 1));
            }
        }
    }
    hold(
        &wrong,
        "unfinished work without an issue",
        "Do it, or write `TODO (issue #7): …`.",
    );
}

#[test]
fn production_code_does_not_unwrap() {
    let wrong = everywhere(|line| line.contains(".unwrap()"));
    hold(
        &wrong,
        "unwrap() in production code",
        "Handle it, or expect(\"why it holds\").",
    );
}

#[test]
fn nothing_is_unsafe() {
    let is_unsafe = |line: &str| {
        let mut words = line.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
        words.any(|word| word == "unsafe")
    };
    hold(
        &everywhere(is_unsafe),
        "unsafe code",
        "There is a safe crate for it: nix, socket2, rustls.",
    );
}

#[test]
fn only_clock_asks_for_the_date_and_only_tokio_for_the_time() {
    let wrong: Vec<_> =
        everywhere(|line| line.contains("SystemTime::now") || line.contains("std::time::Instant"))
            .into_iter()
            .filter(|place| !place.contains("/src/clock.rs:"))
            .collect();
    hold(
        &wrong,
        "clock access outside of clock.rs",
        "Take clock::Wall, or tokio::time::Instant, as an argument.",
    );
}

/// Reads of the environment that are not configuration, and why.
const ENVIRONMENT: [(&str, &str); 2] = [
    ("/src/config.rs:", "the knobs are read here"),
    (
        "control-plane/src/run/",
        "it hands a program its environment, and finds the user's directories",
    ),
];

#[test]
fn only_config_reads_the_environment() {
    let reads = [
        "env::var",
        "env::vars",
        "env::set_var",
        "env::remove_var",
        "env::var_os",
    ];
    let wrong: Vec<_> = everywhere(|line| reads.iter().any(|read| line.contains(read)))
        .into_iter()
        .filter(|place| {
            !ENVIRONMENT
                .iter()
                .any(|(allowed, _)| place.contains(allowed))
        })
        .collect();
    hold(
        &wrong,
        "environment access outside of config.rs",
        "Declare a knob; take its value as an argument.",
    );
}

#[test]
fn tasks_are_spawned_in_runtime_alone() {
    let spawns = ["tokio::spawn(", "spawn_local(", "task::spawn("];
    let wrong: Vec<_> = everywhere(|line| spawns.iter().any(|spawn| line.contains(spawn)))
        .into_iter()
        .filter(|place| !place.contains("/src/runtime.rs:"))
        .collect();
    hold(
        &wrong,
        "tasks without an owner",
        "Spawn through runtime::Tasks.",
    );
}

#[test]
fn names_are_imported_one_by_one_and_from_above_by_their_path() {
    let wrong = everywhere(|line| {
        line.contains("super::super")
            || (line.trim_start().starts_with("use ") && line.contains("::*"))
    });
    hold(
        &wrong,
        "super::super or a glob import",
        "Name what is used; write crate::….",
    );
}

#[test]
fn an_ignored_test_says_why() {
    let mut wrong = Vec::new();
    for path in source::tracked()
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
    {
        let code = source::mask(&source::read(&path));
        let ignored = code
            .lines()
            .enumerate()
            .filter(|(_, line)| line.trim() == "#[ignore]");
        wrong.extend(ignored.map(|(at, _)| format!("{path}:{}", at + 1)));
    }
    hold(
        &wrong,
        "tests ignored without a reason",
        "Write #[ignore = \"why\"], or mend the test.",
    );
}
