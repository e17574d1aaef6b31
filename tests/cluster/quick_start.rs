//! README's quick start on Kubernetes, command by command, as it stands there.

use std::{fs, process::Command};

use weft_tests::wait;

use crate::{
    kubernetes::{Said, kubectl, root},
    mesh::mesh,
};

/// A piece of a command, and what that command prints.
const PRINTED: [(&str, &[&str]); 6] = [
    ("client http://cart/", &["StatusCode=200"]),
    ("weft status", &["shop/web-", "shop/cart-v1-"]),
    ("--count=10", &["cart-v1", "cart-v2"]),
    ("--method=DELETE", &["StatusCode=403", "access-denied"]),
    ("logs", &["\"reason\":\"access-denied\""]),
    ("weft explain", &["no-deletes"]),
];

/// The installation is made already, and of this tree's images.
fn is_done_already(command: &str) -> bool {
    command.starts_with("make ") || command.starts_with("helm install")
}

/// The commands of the section's `sh` blocks.
fn commands() -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## On Kubernetes\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    section
        .split("```sh\n")
        .skip(1)
        .flat_map(|block| block.split("```").next().unwrap().lines())
        .map(|line| line.split(" # ").next().unwrap().trim())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn shell(command: &str) -> Said {
    Said::new(
        &Command::new("bash")
            .args(["-c", command])
            .current_dir(root())
            .output()
            .unwrap(),
    )
}

struct Shop;

impl Drop for Shop {
    fn drop(&mut self) {
        kubectl(&["delete", "namespace", "shop", "--wait=false"]);
    }
}

#[test]
fn the_quick_start_of_the_readme_does_what_it_says() {
    mesh();
    let _shop = Shop;
    let commands = commands();
    for (piece, _) in PRINTED {
        let meant = commands.iter().filter(|it| it.contains(piece)).count();
        assert_eq!(meant, 1, "commands with {piece:?}");
    }
    for command in commands.iter().filter(|it| !is_done_already(it)) {
        let printed = PRINTED.iter().find(|(piece, _)| command.contains(piece));
        let Some((_, expected)) = printed else {
            shell(command).text();
            continue;
        };
        let mut last = None;
        let held = wait::within(wait::PATIENCE, || {
            let said = shell(command);
            let held = expected.iter().all(|it| said.out.contains(it));
            last = Some(said);
            held.then_some(())
        });
        assert!(held.is_some(), "{command}: not {expected:?} in {last:?}");
    }
}
