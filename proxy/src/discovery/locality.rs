//! Which endpoints of a destination a caller uses, and which before others, by
//! where both are.
//!
//! Data, worked out where a snapshot is built; `upstream::balance` sees tiers.
//! The first is what kube-proxy would use; those after it serve when nobody of
//! it can. Where a Service asks for the caller's own node alone
//! (`internalTrafficPolicy: Local`) there is no other tier.
//!
//! Pure.

use std::sync::Arc;

use super::{Endpoint, EndpointState};

/// Where our own pod runs; empty where nobody said.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Here {
    pub(crate) node: Arc<str>,
    pub(crate) zone: Arc<str>,
}

/// For callers of which nodes and zones an endpoint is meant.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Hints {
    pub(crate) nodes: Arc<[Box<str>]>,
    pub(crate) zones: Arc<[Box<str>]>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Rank {
    /// Hinted to our node, or on it where nothing else is asked for.
    Node,
    /// Hinted to our zone.
    Zone,
    Anywhere,
    /// Used while none of the above is there (KEP-1669).
    Draining,
    Never,
}

/// Puts the endpoints in the order of their use, else as they were; where each
/// tier ends. None: nobody may be used.
pub(super) fn arrange(
    endpoints: &mut [Arc<Endpoint>],
    own_node_only: bool,
    here: &Here,
) -> Vec<usize> {
    let hinted = Hinted::new(endpoints, here);
    let rank = |endpoint: &Endpoint| match own_node_only {
        true => rank_by_node(endpoint, here),
        false => hinted.rank(endpoint, here),
    };
    endpoints.sort_by_key(|endpoint| rank(endpoint));
    let until = |last: Rank| endpoints.partition_point(|endpoint| rank(endpoint) <= last);
    let mut ends: Vec<usize> = [Rank::Node, Rank::Zone, Rank::Anywhere]
        .into_iter()
        .map(until)
        .filter(|end| *end > 0)
        .collect();
    ends.dedup();
    if ends.is_empty() {
        ends.extend(Some(until(Rank::Draining)).filter(|end| *end > 0));
    }
    ends
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.state == EndpointState::Ready
}

/// Where no node has a name, all is on one.
fn rank_by_node(endpoint: &Endpoint, here: &Here) -> Rank {
    match (endpoint.node == here.node, is_ready(endpoint)) {
        (true, true) => Rank::Node,
        (true, false) => Rank::Draining,
        (false, _) => Rank::Never,
    }
}

/// Whether hints hold: each ready endpoint has some, and one is for us (KEP-2433).
/// A controller that is behind must not leave out whom it hasn't hinted yet.
struct Hinted {
    nodes: bool,
    zones: bool,
}

impl Hinted {
    fn new(endpoints: &[Arc<Endpoint>], here: &Here) -> Self {
        let holds = |of: fn(&Hints) -> &[Box<str>], ours: &str| {
            let mut ready = endpoints.iter().filter(|endpoint| is_ready(endpoint));
            !ours.is_empty()
                && ready
                    .clone()
                    .all(|endpoint| !of(&endpoint.hints).is_empty())
                && ready.any(|endpoint| names(of(&endpoint.hints), ours))
        };
        Self {
            nodes: holds(|hints| &hints.nodes, &here.node),
            zones: holds(|hints| &hints.zones, &here.zone),
        }
    }

    fn rank(&self, endpoint: &Endpoint, here: &Here) -> Rank {
        if !is_ready(endpoint) {
            Rank::Draining
        } else if self.nodes && names(&endpoint.hints.nodes, &here.node) {
            Rank::Node
        } else if self.zones && names(&endpoint.hints.zones, &here.zone) {
            Rank::Zone
        } else {
            Rank::Anywhere
        }
    }
}

fn names(hints: &[Box<str>], ours: &str) -> bool {
    hints.iter().any(|hint| **hint == *ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::samples;

    const READY: EndpointState = EndpointState::Ready;
    const DRAINING: EndpointState = EndpointState::Draining;

    /// Node, hinted zones, hinted nodes (each of one letter), state.
    type Row = (&'static str, &'static str, &'static str, EndpointState);

    fn endpoints(rows: &[Row]) -> Vec<Arc<Endpoint>> {
        let cells = Arc::default();
        let letters = |text: &str| -> Arc<[Box<str>]> {
            text.chars().map(|it| it.to_string().into()).collect()
        };
        let made = rows
            .iter()
            .zip(0..)
            .map(|((node, zones, nodes, state), key)| {
                samples::placed(key, *state, &cells, |endpoint| {
                    endpoint.node = (*node).into();
                    endpoint.hints = Hints {
                        nodes: letters(nodes),
                        zones: letters(zones),
                    };
                })
            });
        made.collect()
    }

    /// The keys of each tier, for a caller on node "n" in zone "z".
    fn tiers(own_node_only: bool, rows: &[Row]) -> Vec<Vec<u64>> {
        let here = Here {
            node: "n".into(),
            zone: "z".into(),
        };
        seen(own_node_only, &here, rows)
    }

    fn seen(own_node_only: bool, here: &Here, rows: &[Row]) -> Vec<Vec<u64>> {
        let mut endpoints = endpoints(rows);
        let ends = arrange(&mut endpoints, own_node_only, here);
        let mut begin = 0;
        let keys = |end: usize| {
            let tier = endpoints[begin..end].iter().map(|it| it.key.0).collect();
            begin = end;
            tier
        };
        ends.into_iter().map(keys).collect()
    }

    #[test]
    fn without_hints_all_that_are_ready_are_one_tier_in_their_order() {
        assert_eq!(
            tiers(
                false,
                &[
                    ("a", "", "", READY),
                    ("n", "", "", DRAINING),
                    ("n", "", "", READY)
                ]
            ),
            [vec![0, 2]]
        );
        assert_eq!(
            tiers(false, &[("a", "", "", DRAINING), ("n", "z", "", DRAINING)]),
            [vec![0, 1]],
            "none is ready: those that still serve"
        );
        assert!(tiers(false, &[]).is_empty());
    }

    #[test]
    fn own_node_only_leaves_nobody_else_even_where_there_is_nobody() {
        let table: [(&[Row], &[&[u64]]); 4] = [
            (&[("a", "", "", READY), ("n", "", "", READY)], &[&[1]]),
            (&[("a", "", "", READY), ("b", "", "", READY)], &[]),
            // KEP-1669: of this node, before ready ones of others.
            (&[("a", "", "", READY), ("n", "", "", DRAINING)], &[&[1]]),
            // Hints say nothing here.
            (&[("a", "z", "n", READY), ("n", "y", "m", READY)], &[&[1]]),
        ];
        for (rows, expected) in table {
            assert_eq!(tiers(true, rows), expected, "{rows:?}");
        }
        let nowhere = Here::default();
        assert_eq!(
            seen(true, &nowhere, &[("", "", "", READY), ("a", "", "", READY)]),
            [vec![0]],
            "nobody names nodes: all that has none is on one"
        );
    }

    #[test]
    fn hints_come_first_where_all_have_them_and_one_is_for_us() {
        let table: [(&[Row], &[&[u64]]); 6] = [
            (
                &[
                    ("", "y", "", READY),
                    ("", "z", "", READY),
                    ("", "yz", "", READY),
                ],
                &[&[1, 2], &[0]],
            ),
            // One has none yet.
            (&[("", "z", "", READY), ("", "", "", READY)], &[&[0, 1]]),
            // None is for our zone.
            (&[("", "y", "", READY), ("", "x", "", READY)], &[&[0, 1]]),
            // What drains has no say, and nothing to do.
            (
                &[
                    ("", "", "", DRAINING),
                    ("", "z", "", READY),
                    ("", "y", "", READY),
                ],
                &[&[1], &[2]],
            ),
            // Our node, our zone, and the rest.
            (
                &[
                    ("", "y", "m", READY),
                    ("", "z", "m", READY),
                    ("", "z", "n", READY),
                ],
                &[&[2], &[1], &[0]],
            ),
            // All are for us.
            (&[("", "z", "n", READY), ("", "z", "n", READY)], &[&[0, 1]]),
        ];
        for (rows, expected) in table {
            assert_eq!(tiers(false, rows), expected, "{rows:?}");
        }
        let nowhere = Here::default();
        let rows = [("", "z", "n", READY), ("", "y", "m", READY)];
        assert_eq!(seen(false, &nowhere, &rows), [vec![0, 1]]);
    }
}
