//! When a root may come, sign and go.
//!
//! Three rules, whoever has put a root where it is: it signs once every live
//! pod has been seen to hold it; it goes when it is in no Secret any more and no
//! live leaf ends in it; and what can't be seen is no reason to go on. Rotating
//! is one more root beside the old, and then these rules.
//!
//! A leaf lives until it expires: a pod that has another by now still has
//! connections that were made with the one before, and a root that goes ends them.
//!
//! Pure: `cluster::rotation` reads the Secret, asks who holds what, and writes.

use std::time::Duration;

use time::OffsetDateTime;

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
    /// Roots that nothing is signed under any more, and when the last leaf of
    /// theirs will have expired; since the epoch.
    pub(crate) outlived: Option<(Vec<Fingerprint>, Duration)>,
    /// The rotation that somebody asks for, and the last that was begun or refused.
    pub(crate) asked: Option<String>,
    pub(crate) served: Option<String>,
}

/// What is known of a live pod, or of a replica of the control plane.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) holds: Vec<Fingerprint>,
    /// In which leaves end that it may show now; none: nobody knows.
    pub(crate) leaves: Vec<Fingerprint>,
}

#[derive(Clone, Debug)]
pub(crate) enum View {
    /// Every live pod and every replica is in it.
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
    /// Nothing is signed under these any more.
    Retire(Vec<Fingerprint>),
    /// Nobody needs these any more.
    Remove(Vec<Fingerprint>),
    /// A new root beside the old.
    Begin,
    /// Never, and why.
    Refuse(&'static str),
    /// Not yet, and why.
    Wait(Phase, String),
    Rest,
}

/// What a rotation waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The new root has to spread.
    Spread,
    /// Leaves of the old one live.
    Expire,
    /// Who shows one that it should not have any more.
    Renew,
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
    pub(crate) fn needs_a_view(&self, now: Duration) -> bool {
        let leaving = self.leaving();
        let is_over = || self.lives_until(&leaving).is_some_and(|end| end <= now);
        !self.unsettled().is_empty() || !leaving.is_empty() && is_over()
    }

    /// When the last leaf of theirs will have expired, once that is known.
    fn lives_until(&self, leaving: &[Fingerprint]) -> Option<Duration> {
        let (roots, end) = self.outlived.as_ref()?;
        leaving.iter().all(|it| roots.contains(it)).then_some(*end)
    }
}

/// `now` since the epoch.
pub(crate) fn decide(facts: &Facts, view: &View, now: Duration) -> Step {
    let (unsettled, leaving) = (facts.unsettled(), facts.leaving());
    if !unsettled.is_empty() {
        let what = format!("hold the new root {}", shown(&unsettled));
        let holds_all = |it: &Seen| unsettled.iter().all(|root| it.holds.contains(root));
        return match waits_for(view, &what, holds_all) {
            Some(wait) => Step::Wait(Phase::Spread, wait),
            None => Step::Settle(unsettled),
        };
    }
    if facts.next.is_some() {
        return Step::Promote;
    }
    if !leaving.is_empty() {
        match facts.lives_until(&leaving) {
            None => return Step::Retire(leaving),
            Some(end) if now < end => {
                let (old, end) = (shown(&leaving), date(end));
                let why = format!(
                    "waits until {end} for certificates under the old root {old} to expire; new ones end in the new"
                );
                return Step::Wait(Phase::Expire, why);
            }
            Some(_) => {}
        }
        let what = format!("renew what ends in the old root {}", shown(&leaving));
        let is_free = |it: &Seen| {
            !it.leaves.is_empty() && !it.leaves.iter().any(|root| leaving.contains(root))
        };
        return match waits_for(view, &what, is_free) {
            Some(wait) => Step::Wait(Phase::Renew, wait),
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
    let all = match view {
        View::Whole(all) => all,
        View::Unknown(why) => return Some(format!("can't see whether all proxies {what}: {why}")),
    };
    let waiting: Vec<_> = all.iter().filter(|it| !is_done(it)).collect();
    if waiting.is_empty() {
        return None;
    }
    let names: Vec<_> = waiting.iter().take(3).map(|it| it.name.as_str()).collect();
    let more = match waiting.len().saturating_sub(names.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "waits for {} of {} proxies and replicas to {what}: {}{more}",
        waiting.len(),
        all.len(),
        names.join(", ")
    ))
}

/// For people: the minute by which it has come.
fn date(since_epoch: Duration) -> String {
    let minutes = since_epoch.as_secs().div_ceil(60);
    let seconds = i64::try_from(minutes.saturating_mul(60)).unwrap_or(i64::MAX);
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else {
        return format!("second {seconds}");
    };
    let (date, month) = (at.date(), u8::from(at.month()));
    let (year, day, hour, minute) = (date.year(), date.day(), at.hour(), at.minute());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

fn shown(roots: &[Fingerprint]) -> String {
    let all: Vec<_> = roots.iter().map(Fingerprint::short).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests;
