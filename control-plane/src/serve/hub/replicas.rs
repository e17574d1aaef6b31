//! What other replicas have told: kept by the Lease's holder alone.
//!
//! Part of `hub`. One summary a replica, for as long as the replica is there; it
//! counts while it is fresh. A replica that is there and silent makes the view
//! unknown, which is never "all".

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::serve::hub::{State, Summary};

/// A root must not go by what was true long ago. Reports come every few seconds.
const FRESH: Duration = Duration::from_secs(15);
/// Counts of proxies may be a little old, so that a replica that restarts
/// doesn't move the status of every route: as long as one takes to start.
const RECENT: Duration = Duration::from_secs(30);
/// More than anybody runs.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Replicas {
    told: BTreeMap<String, Told>,
    /// That are there, and since when we know.
    expected: BTreeMap<String, Instant>,
    silent: BTreeSet<String>,
}

#[derive(Debug)]
struct Told {
    version: u64,
    summary: Summary,
    heard: Instant,
}

impl Replicas {
    pub(super) fn fresh(&self, replica: &str) -> Option<&Summary> {
        let told = self.told.get(replica)?;
        (told.heard.elapsed() < FRESH).then_some(&told.summary)
    }

    pub(super) fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.told.values().map(|it| &it.summary)
    }

    /// The first that has told nothing for too long.
    pub(super) fn silent(&self) -> Option<&str> {
        self.silent.first().map(String::as_str)
    }
}

impl State {
    /// Whether it is understood; else it has to be told whole.
    pub(crate) fn reported(
        &mut self,
        replica: &str,
        version: u64,
        summary: Option<Summary>,
    ) -> bool {
        let (heard, told) = (Instant::now(), &mut self.replicas.told);
        let Some(summary) = summary else {
            let known = told.get_mut(replica).filter(|it| it.version == version);
            return known.map(|it| it.heard = heard).is_some();
        };
        if told.len() >= MOST && !told.contains_key(replica) {
            tracing::warn!(replica, "more replicas than can be heard");
            return true;
        }
        let fresh = Told {
            version,
            summary,
            heard,
        };
        told.insert(replica.to_owned(), fresh);
        self.stir();
        true
    }

    /// These are there; what others have told is forgotten. Answers how many of
    /// them are silent.
    pub(crate) fn expect_replicas(&mut self, others: &[String]) -> usize {
        let now = Instant::now();
        let Replicas {
            told,
            expected,
            silent,
        } = &mut self.replicas;
        let before = (told.len(), silent.clone());
        told.retain(|name, _| others.contains(name));
        expected.retain(|name, _| others.contains(name));
        for name in others {
            expected.entry(name.clone()).or_insert(now);
        }
        *silent = expected
            .iter()
            .filter(|(name, since)| {
                let heard = told.get(*name).map_or(**since, |it| it.heard);
                now.saturating_duration_since(heard) >= RECENT
            })
            .map(|(name, _)| name.clone())
            .collect();
        let count = silent.len();
        if before != (told.len(), silent.clone()) {
            self.stir();
        }
        count
    }
}
