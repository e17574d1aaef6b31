//! What is read when, and what a bad file may change.

use std::{io::Write, os::unix::fs::symlink};

use super::*;

#[tokio::test]
async fn the_first_update_is_all_that_there_is() {
    let mut world = World::with("", |root| {
        fs::create_dir_all(root.join("deep/er")).unwrap();
        fs::write(root.join("a.yaml"), service("a") + &service("b")).unwrap();
        fs::write(root.join("deep/er/c.yml"), service("c")).unwrap();
        fs::write(
            root.join("d.json"),
            r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "d"}}"#,
        )
        .unwrap();
        fs::write(root.join("notes.txt"), service("no")).unwrap();
        fs::write(root.join(".hidden.yaml"), service("no")).unwrap();
    });
    assert_eq!(world.told().await, ["+/d", "+shop/a", "+shop/b", "+shop/c"]);
    world.write("a.yaml", &service("a"));
    assert_eq!(world.told().await, ["-shop/b"]);
}

#[tokio::test]
async fn an_empty_directory_is_told_as_such() {
    let mut world = World::with("", |_| {});
    assert_eq!(
        world.update().await,
        Update {
            events: vec![],
            moved: vec![],
            problems: vec![],
            is_whole: true,
        }
    );
}

#[tokio::test]
async fn an_object_that_moves_is_the_same_at_another_place() {
    let mut world = World::with("", |root| {
        fs::write(root.join("a.yaml"), service("a") + &service("b")).unwrap();
    });
    let moved = |update: Update| {
        let mut moved: Vec<_> = update
            .moved
            .into_iter()
            .map(|(key, to)| {
                let to = to.map(|it| format!("{} {}", it.file, it.document));
                (key.name.name.clone(), to)
            })
            .collect();
        moved.sort();
        moved
    };
    let at = |name: &str, to: Option<&str>| (name.to_owned(), to.map(str::to_owned));
    let first = [at("a", Some("a.yaml 0")), at("b", Some("a.yaml 1"))];
    assert_eq!(moved(world.update().await), first);
    world.write("a.yaml", &(service("b") + &service("a")));
    let update = world.update().await;
    assert_eq!(update.events, []);
    assert_eq!(
        moved(update),
        [at("a", Some("a.yaml 1")), at("b", Some("a.yaml 0"))]
    );
    world.write("a.yaml", &service("b"));
    assert_eq!(moved(world.update().await), [at("a", None)]);
}

#[tokio::test]
async fn a_half_written_file_changes_nothing() {
    let mut world = World::with("", |root| {
        fs::write(root.join("a.yaml"), service("a") + &service("b")).unwrap()
    });
    world.update().await;
    let mut half = fs::File::create(world.path("a.yaml")).unwrap();
    half.write_all(service("a").as_bytes()).unwrap();
    half.sync_all().unwrap();
    // The marker is told after whatever the half file would have brought.
    world.write("marker.yaml", &service("marker"));
    assert_eq!(world.told().await, ["+shop/marker"]);
    half.write_all(service("c").as_bytes()).unwrap();
    drop(half);
    assert_eq!(world.told().await, ["+shop/c", "-shop/b"]);
}

#[tokio::test]
async fn a_file_that_is_no_yaml_or_empty_changes_nothing_and_says_so() {
    let mut world = World::with("", |root| {
        fs::write(root.join("a.yaml"), service("a") + &service("b")).unwrap()
    });
    world.update().await;
    for (text, expected) in [
        (service_on("a", 81) + "kind: [", "is no YAML"),
        (" \n".to_owned(), "is empty: its objects stay"),
    ] {
        world.write("a.yaml", &text);
        let update = world.update().await;
        assert_eq!(update.events, []);
        assert!(
            update.problems[0].message.starts_with(expected),
            "{update:?}"
        );
    }
    // A comment is a complete file without objects.
    world.write("a.yaml", "# nothing any more\n");
    let update = world.update().await;
    assert_eq!(told(&update), ["-shop/a", "-shop/b"]);
    assert_eq!(update.problems, []);
}

#[tokio::test]
async fn a_refused_object_keeps_its_last_good_state_and_others_go_on() {
    let mut world = World::with("", |root| {
        fs::write(root.join("a.yaml"), service("a") + &service("b")).unwrap()
    });
    world.update().await;
    let refused = service_on("a", 0);
    world.write("a.yaml", &(refused + &service("c")));
    let update = world.update().await;
    assert_eq!(told(&update), ["+shop/c", "-shop/b"]);
    assert_eq!(update.problems[0].object, Some(key("a")));
    assert_eq!(update.problems[0].field, "spec.ports[0].port");
    world.write("a.yaml", &(service_on("a", 81) + &service("c")));
    let update = world.update().await;
    assert_eq!(told(&update), ["+shop/a"]);
    assert_eq!(update.problems, []);
}

#[tokio::test]
async fn with_a_document_that_says_not_what_it_is_nothing_vanishes() {
    let mut world = World::with("", |root| {
        fs::write(root.join("a.yaml"), service("a") + &service("b")).unwrap()
    });
    world.update().await;
    world.write("a.yaml", &service("a").replace("name: a,", ""));
    assert_eq!(world.update().await.events, []);
    // It names the object that it may be: only that one stays.
    world.write(
        "a.yaml",
        &service("a").replace("kind: Service", "kind: Servce"),
    );
    assert_eq!(world.told().await, ["-shop/b"]);
}

#[tokio::test]
async fn a_rename_over_a_file_is_one_change() {
    let mut world = World::with("", |root| {
        fs::write(root.join("a.yaml"), service("a")).unwrap()
    });
    world.update().await;
    world.write(".a.tmp", &service_on("a", 81));
    fs::rename(world.path(".a.tmp"), world.path("a.yaml")).unwrap();
    let update = world.update().await;
    assert_eq!(told(&update), ["+shop/a"]);
    let Event::Apply(Object::Service(service)) = &update.events[0] else {
        panic!("{update:?}")
    };
    assert_eq!(service.ports[0].port, 81);
}

#[tokio::test]
async fn an_editor_that_moves_the_old_file_away_first_takes_nothing_away() {
    let mut world = World::with("", |root| {
        fs::write(root.join("a.yaml"), service("a")).unwrap()
    });
    world.update().await;
    fs::rename(world.path("a.yaml"), world.path("a.yaml~")).unwrap();
    world.write("marker.yaml", &service("marker"));
    assert_eq!(world.told().await, ["+shop/marker"]);
    world.write("a.yaml", &service_on("a", 81));
    assert_eq!(world.told().await, ["+shop/a"]);
}

#[tokio::test]
async fn a_deleted_file_takes_its_objects_with_it() {
    let mut world = World::with("", |root| {
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("a.yaml"), service("a")).unwrap();
        fs::write(root.join("sub/b.yaml"), service("b")).unwrap();
    });
    world.update().await;
    fs::remove_file(world.path("a.yaml")).unwrap();
    assert_eq!(world.told().await, ["-shop/a"]);
    fs::remove_dir_all(world.path("sub")).unwrap();
    assert_eq!(world.told().await, ["-shop/b"]);
}

#[tokio::test]
async fn directories_that_appear_later_are_watched() {
    let mut world = World::with("later/on", |_| {});
    fs::create_dir_all(world.path("later/on")).unwrap();
    assert_eq!(world.update().await.events, []);
    fs::create_dir(world.path("later/on/sub")).unwrap();
    world.write("later/on/sub/a.yaml", &service("a"));
    assert_eq!(world.told().await, ["+shop/a"]);
    // Filled elsewhere and moved in whole.
    fs::create_dir(world.path("elsewhere")).unwrap();
    world.write("elsewhere/b.yaml", &service("b"));
    fs::rename(world.path("elsewhere"), world.path("later/on/moved")).unwrap();
    assert_eq!(world.told().await, ["+shop/b"]);
    // Moved within: nothing is different.
    fs::rename(world.path("later/on/moved"), world.path("later/on/again")).unwrap();
    world.write("later/on/again/c.yaml", &service("c"));
    assert_eq!(world.told().await, ["+shop/c"]);
}

#[tokio::test]
async fn a_vanished_root_keeps_its_state_until_it_is_back() {
    let mut world = World::with("root", |root| {
        fs::create_dir(root.join("root")).unwrap();
        fs::write(root.join("root/a.yaml"), service("a") + &service("b")).unwrap();
    });
    world.update().await;
    fs::rename(world.path("root"), world.path("away")).unwrap();
    fs::create_dir(world.path("new")).unwrap();
    world.write("new/a.yaml", &service("b"));
    fs::rename(world.path("new"), world.path("root")).unwrap();
    assert_eq!(world.told().await, ["-shop/a"]);
    world.write("root/c.yaml", &service("c"));
    assert_eq!(world.told().await, ["+shop/c"]);
}

#[tokio::test]
async fn a_mounted_config_map_changes_as_a_whole() {
    let fill = |root: &Path, version: &str, files: &[(&str, String)]| {
        fs::create_dir(root.join(version)).unwrap();
        for (name, text) in files {
            fs::write(root.join(version).join(name), text).unwrap();
        }
    };
    let mut world = World::with("", |root| {
        fill(
            root,
            "..1",
            &[("a.yaml", service("a")), ("b.yaml", service("b"))],
        );
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        symlink("..data/b.yaml", root.join("b.yaml")).unwrap();
    });
    assert_eq!(world.told().await, ["+shop/a", "+shop/b"]);
    for version in ["..2", "..3"] {
        let port = if version == "..2" { 82 } else { 83 };
        fill(
            world.directory.path(),
            version,
            &[("a.yaml", service_on("a", port)), ("b.yaml", service("b"))],
        );
        symlink(version, world.path("..data_tmp")).unwrap();
        fs::rename(world.path("..data_tmp"), world.path("..data")).unwrap();
        assert_eq!(world.told().await, ["+shop/a"]);
    }
    fs::remove_dir_all(world.path("..1")).unwrap();
    fs::remove_dir_all(world.path("..2")).unwrap();
    world.write("..3/b.yaml", &service_on("b", 84));
    assert_eq!(world.told().await, ["+shop/b"]);
}

#[tokio::test]
async fn a_swapped_link_to_a_directory_is_another_directory() {
    let mut world = World::with("root", |root| {
        for (version, text) in [("1", service("a") + &service("b")), ("2", service("a"))] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("all.yaml"), text).unwrap();
        }
        fs::create_dir(root.join("root")).unwrap();
        symlink("../1", root.join("root/current")).unwrap();
        // One that leads back ends there.
        symlink("..", root.join("1/back")).unwrap();
        symlink("../root", root.join("root/loop")).unwrap();
    });
    let first = world.told().await;
    assert!(first.contains(&"+shop/a".to_owned()) && first.contains(&"+shop/b".to_owned()));
    symlink("../2", world.path("root/.new")).unwrap();
    fs::rename(world.path("root/.new"), world.path("root/current")).unwrap();
    world.write("2/all.yaml", &service_on("a", 81));
    let mut all = world.told().await;
    while all.len() < 2 {
        all.extend(world.told().await);
    }
    all.sort();
    assert!(
        all.contains(&"-shop/b".to_owned()) || all.contains(&"+shop/a".to_owned()),
        "{all:?}"
    );
}

#[tokio::test]
async fn the_first_file_by_path_has_an_object_that_two_have() {
    let mut world = World::with("", |root| {
        fs::write(root.join("b.yaml"), service_on("a", 82)).unwrap()
    });
    world.update().await;
    world.write("a.yaml", &service_on("a", 81));
    let update = world.update().await;
    assert_eq!(told(&update), ["+shop/a"]);
    let problem = &update.problems[0];
    assert_eq!(
        (problem.file.as_str(), problem.document),
        ("b.yaml", Some(0))
    );
    assert_eq!(
        problem.message,
        "names Service shop/a, which a.yaml has already"
    );
    fs::remove_file(world.path("a.yaml")).unwrap();
    let update = world.update().await;
    assert_eq!(
        (told(&update), update.problems.len()),
        (vec!["+shop/a".to_owned()], 0)
    );
}

#[tokio::test]
async fn a_hard_link_is_a_finished_file() {
    let mut world = World::with("root", |root| {
        fs::create_dir(root.join("root")).unwrap();
        fs::write(root.join("a.yaml"), service("a")).unwrap();
    });
    world.update().await;
    fs::hard_link(world.path("a.yaml"), world.path("root/a.yaml")).unwrap();
    assert_eq!(world.told().await, ["+shop/a"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_says_so_and_changes_nothing() {
    let mut world = World::with("", |root| {
        fs::write(root.join("a.yaml"), service("a")).unwrap()
    });
    world.update().await;
    fs::write(world.path("a.yaml"), b"\xff\xfe").unwrap();
    let update = world.update().await;
    assert_eq!(update.events, []);
    assert_eq!(
        update.problems[0].message,
        "can't be read: it is no UTF-8 text"
    );
}

#[tokio::test]
async fn a_restart_remembers_the_last_good_state_of_what_is_broken() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Some(directory.path().join("memory"));
    fs::create_dir(directory.path().join("root")).unwrap();
    let mut world = World::over(directory, "root", memory.clone());
    world.update().await;
    world.write("root/a.yaml", &(service("a") + &service("b")));
    world.update().await;
    world.write("root/c.yaml", &service("c"));
    world.update().await;
    // One object broken, one file unreadable; the other is deleted meanwhile.
    world.write("root/a.yaml", &(service_on("a", 0) + "kind: ["));
    assert_eq!(world.update().await.problems.len(), 1);
    let world = world.restarted("root", memory.clone()).await;
    fs::remove_file(world.path("root/c.yaml")).unwrap();
    let mut world = world.restarted("root", memory.clone()).await;
    let update = world.update().await;
    let kept: Vec<_> = told(&update)
        .into_iter()
        .filter(|it| !it.ends_with("/c"))
        .collect();
    assert_eq!(kept, ["+shop/a", "+shop/b"]);
    assert_eq!(update.problems.len(), 1);
    // Gone for good once the file is.
    fs::remove_file(world.path("root/a.yaml")).unwrap();
    world.update().await;
    let mut world = world.restarted("root", memory).await;
    assert_eq!(
        world.update().await,
        Update {
            events: vec![],
            moved: vec![],
            problems: vec![],
            is_whole: true,
        }
    );
}
