//! When a root may come, sign and go.
//!
//! Three rules, whoever has put a root where it is: it signs once every live
//! pod has been seen to hold it; it goes when it is in no Secret any more and no
//! live leaf ends in it; and what can't be seen is no reason to go on. Rotating
//! is one more root beside the old, and then these rules.
//!
//! Pure: `cluster::rotation` reads the Secret, asks who holds what, and writes.

use crate::roots::Fingerprint;

/// What the Secret says.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// `ca.crt`.
    pub(crate) given: Vec<Fingerprint>,
    /// That every live pod has been seen to hold.
    pub(crate) settled: Vec<Fingerprint>,
    /// In which what `tls.crt` signs ends.
    pub(crate) signer: Fingerprint,
    /// Waits to be the signer.
    pub(crate) next: Option<Fingerprint>,
    /// Made here; of others the keys are none of our business.
    pub(crate) is_ours: bool,
    /// The rotation that somebody asks for, and the last that was begun or refused.
    pub(crate) asked: Option<String>,
    pub(crate) served: Option<String>,
}

/// What is known of a live pod.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) pod: String,
    pub(crate) holds: Vec<Fingerprint>,
    /// In which its newest leaf ends; `None`: nobody knows.
    pub(crate) leaf: Option<Fingerprint>,
}

#[derive(Clone, Debug)]
pub(crate) enum View {
    /// Every live pod is in it.
    Whole(Vec<Seen>),
    /// And why.
    Unknown(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Everyone holds these.
    Settle(Vec<Fingerprint>),
    /// The next signer signs.
    Promote,
    /// Nobody needs these any more.
    Remove(Vec<Fingerprint>),
    /// A new root beside the old.
    Begin,
    /// Never, and why.
    Refuse(&'static str),
    /// Not yet, and why.
    Wait(String),
    Rest,
}

const NOT_OURS: &str = "the Secret is not of our making: put the new root into ca.crt beside the old, then exchange tls.crt and tls.key";

impl Facts {
    fn unsettled(&self) -> Vec<Fingerprint> {
        let missing = |it: &&Fingerprint| !self.settled.contains(it);
        self.given.iter().filter(missing).copied().collect()
    }

    fn leaving(&self) -> Vec<Fingerprint> {
        let is_leaving = |it: &&Fingerprint| {
            !self.given.contains(it) && self.signer != **it && self.next != Some(**it)
        };
        self.settled.iter().filter(is_leaving).copied().collect()
    }

    /// Whether `decide` will look at who holds what, which costs a question.
    pub(crate) fn needs_a_view(&self) -> bool {
        !self.unsettled().is_empty() || !self.leaving().is_empty()
    }
}

pub(crate) fn decide(facts: &Facts, view: &View) -> Step {
    let (unsettled, leaving) = (facts.unsettled(), facts.leaving());
    if !unsettled.is_empty() {
        let what = format!("hold the new root {}", shown(&unsettled));
        let holds_all = |it: &Seen| unsettled.iter().all(|root| it.holds.contains(root));
        return match waits_for(view, &what, holds_all) {
            Some(wait) => Step::Wait(wait),
            None => Step::Settle(unsettled),
        };
    }
    if facts.next.is_some() {
        return Step::Promote;
    }
    if !leaving.is_empty() {
        let what = format!("renew what ends in the old root {}", shown(&leaving));
        let is_free = |it: &Seen| it.leaf.is_some_and(|root| !leaving.contains(&root));
        return match waits_for(view, &what, is_free) {
            Some(wait) => Step::Wait(wait),
            None => Step::Remove(leaving),
        };
    }
    match (&facts.asked, facts.is_ours) {
        (None, _) => Step::Rest,
        (asked, _) if *asked == facts.served => Step::Rest,
        (Some(_), true) => Step::Begin,
        (Some(_), false) => Step::Refuse(NOT_OURS),
    }
}

/// Who is waited for, by name; `None`: nobody.
fn waits_for(view: &View, what: &str, is_done: impl Fn(&Seen) -> bool) -> Option<String> {
    let pods = match view {
        View::Whole(pods) => pods,
        View::Unknown(why) => return Some(format!("can't see whether all proxies {what}: {why}")),
    };
    let waiting: Vec<_> = pods.iter().filter(|it| !is_done(it)).collect();
    if waiting.is_empty() {
        return None;
    }
    let names: Vec<_> = waiting.iter().take(3).map(|it| it.pod.as_str()).collect();
    let more = match waiting.len().saturating_sub(names.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "waits for {} of {} proxies to {what}: {}{more}",
        waiting.len(),
        pods.len(),
        names.join(", ")
    ))
}

fn shown(roots: &[Fingerprint]) -> String {
    let all: Vec<_> = roots.iter().map(Fingerprint::short).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests;
