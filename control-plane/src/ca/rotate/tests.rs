use rustls_pki_types::CertificateDer;

use super::*;

fn root(name: &str) -> Fingerprint {
    Fingerprint::of(&CertificateDer::from(name.as_bytes().to_vec()))
}

fn roots(names: &str) -> Vec<Fingerprint> {
    names.split_whitespace().map(root).collect()
}

/// `ca.crt`, what has settled, and the root of what signs.
fn facts(given: &str, settled: &str, signer: &str) -> Facts {
    Facts {
        given: roots(given),
        settled: roots(settled),
        signer: root(signer),
        next: None,
        is_ours: true,
        outlived: None,
        asked: None,
        served: None,
    }
}

fn seen(pod: &str, holds: &str, leaf: Option<&str>) -> Seen {
    Seen {
        name: pod.to_owned(),
        holds: roots(holds),
        leaves: leaf.map(root).into_iter().collect(),
    }
}

fn whole(pods: &[Seen]) -> View {
    View::Whole(pods.to_vec())
}

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn decide(facts: &Facts, view: &View) -> Step {
    super::decide(facts, view, NOW)
}

/// The leaves of these have expired.
fn outlived(facts: &mut Facts, names: &str) {
    facts.outlived = Some((roots(names), NOW));
}

fn wait(step: Step) -> String {
    match step {
        Step::Wait(_, why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn at_rest_nobody_is_asked() {
    let rest = facts("old", "old", "old");
    assert!(!rest.needs_a_view(NOW));
    assert_eq!(decide(&rest, &View::Unknown(String::new())), Step::Rest);
}

#[test]
fn a_first_root_settles_where_nobody_lives() {
    let first = facts("old", "", "old");
    assert!(first.needs_a_view(NOW));
    assert_eq!(decide(&first, &whole(&[])), Step::Settle(roots("old")));
}

#[test]
fn a_rotation_goes_through_its_steps_and_waits_for_everyone_by_name() {
    let mut facts = facts("old", "old", "old");
    facts.asked = Some("1".to_owned());
    assert_eq!(decide(&facts, &whole(&[])), Step::Begin);
    facts.served = facts.asked.clone();

    facts.given = roots("old new");
    facts.next = Some(root("new"));
    let behind = [
        seen("shop/a", "old new", Some("old")),
        seen("shop/b", "old", Some("old")),
        seen("shop/c", "", None),
    ];
    let why = wait(decide(&facts, &whole(&behind)));
    assert!(
        why.starts_with("waits for 2 of 3 proxies and replicas to hold the new root"),
        "{why}"
    );
    assert!(why.ends_with("shop/b, shop/c"), "{why}");
    let all = [
        seen("shop/a", "old new", Some("old")),
        seen("shop/b", "new old", None),
    ];
    assert_eq!(decide(&facts, &whole(&all)), Step::Settle(roots("new")));
    facts.settled = roots("old new");
    assert_eq!(decide(&facts, &whole(&all)), Step::Promote);

    (facts.given, facts.next, facts.signer) = (roots("new"), None, root("new"));
    assert_eq!(decide(&facts, &whole(&all)), Step::Retire(roots("old")));
    facts.outlived = Some((roots("old"), NOW + Duration::from_secs(90)));
    assert!(!facts.needs_a_view(NOW));
    let why = wait(decide(&facts, &whole(&all)));
    assert!(why.starts_with("waits until 2027-01-15 08:02 UTC"), "{why}");
    outlived(&mut facts, "old");
    assert!(facts.needs_a_view(NOW));
    let why = wait(decide(&facts, &whole(&all)));
    assert!(
        why.starts_with("waits for 2 of 2 proxies and replicas to renew"),
        "{why}"
    );
    let renewed = [seen("shop/a", "old new", Some("new"))];
    assert_eq!(decide(&facts, &whole(&renewed)), Step::Remove(roots("old")));
    facts.settled = roots("new");
    assert_eq!(decide(&facts, &whole(&renewed)), Step::Rest);
}

#[test]
fn what_can_not_be_seen_stops_everything_but_says_so() {
    let unknown = View::Unknown("replica b does not answer".to_owned());
    for mut facts in [
        facts("old new", "old", "old"),
        facts("new", "old new", "new"),
    ] {
        outlived(&mut facts, "old");
        let why = wait(decide(&facts, &unknown));
        assert!(
            why.contains("can't see") && why.ends_with("replica b does not answer"),
            "{why}"
        );
    }
}

#[test]
fn a_given_secret_that_changes_its_root_keeps_the_old_until_nobody_needs_it() {
    let mut facts = facts("new", "old", "new");
    facts.is_ours = false;
    let behind = [seen("shop/a", "old", Some("old"))];
    wait(decide(&facts, &whole(&behind)));
    let holds = [seen("shop/a", "old new", Some("old"))];
    assert_eq!(decide(&facts, &whole(&holds)), Step::Settle(roots("new")));
    facts.settled = roots("old new");
    assert_eq!(decide(&facts, &whole(&holds)), Step::Retire(roots("old")));
    outlived(&mut facts, "old");
    wait(decide(&facts, &whole(&holds)));
    let renewed = [seen("shop/a", "old new", Some("new"))];
    assert_eq!(decide(&facts, &whole(&renewed)), Step::Remove(roots("old")));
}

#[test]
fn what_signs_is_never_removed_even_where_ca_crt_lacks_it() {
    let odd = facts("other", "other old", "old");
    assert_eq!(decide(&odd, &whole(&[])), Step::Rest);
}

#[test]
fn a_rotation_is_begun_once_and_that_of_a_given_secret_refused_with_the_remedy() {
    let mut facts = facts("old", "old", "old");
    facts.asked = Some("2".to_owned());
    facts.served = Some("1".to_owned());
    facts.is_ours = false;
    let Step::Refuse(why) = decide(&facts, &whole(&[])) else {
        panic!()
    };
    assert!(why.contains("ca.crt beside the old"));
    facts.served = Some("2".to_owned());
    assert_eq!(decide(&facts, &whole(&[])), Step::Rest);
}

#[test]
fn a_rotation_asked_for_while_another_runs_begins_after_it() {
    let mut facts = facts("new", "old new", "new");
    facts.asked = Some("2".to_owned());
    facts.served = Some("1".to_owned());
    outlived(&mut facts, "old");
    let pending = [seen("shop/a", "old new", Some("old"))];
    wait(decide(&facts, &whole(&pending)));
    facts.settled = roots("new");
    assert_eq!(decide(&facts, &whole(&pending)), Step::Begin);
}

#[test]
fn of_many_three_are_named_and_the_rest_counted() {
    let pods: Vec<_> = (0..5)
        .map(|it| seen(&format!("shop/{it}"), "old", None))
        .collect();
    let why = wait(decide(&facts("old new", "old", "old"), &View::Whole(pods)));
    assert!(why.ends_with("shop/0, shop/1, shop/2 and 2 more"), "{why}");
}

#[test]
fn what_has_expired_of_another_root_says_nothing_of_this_one() {
    let mut facts = facts("new", "older old new", "new");
    outlived(&mut facts, "older");
    let both = Step::Retire(roots("older old"));
    assert_eq!(decide(&facts, &whole(&[])), both);
}

#[test]
fn a_pod_that_may_still_show_an_old_leaf_or_that_nobody_has_seen_is_waited_for() {
    let mut facts = facts("new", "old new", "new");
    outlived(&mut facts, "old");
    let mut both = seen("shop/a", "old new", Some("new"));
    both.leaves.push(root("old"));
    for pod in [both, seen("shop/a", "", None)] {
        let why = wait(decide(&facts, &whole(&[pod])));
        assert!(why.ends_with("shop/a"), "{why}");
    }
}
