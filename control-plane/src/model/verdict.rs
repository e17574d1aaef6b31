//! What the mesh answers to an object: the conditions of its status.
//!
//! `index` decides them, a writer puts them where people read them. Types and
//! reasons are those of the Gateway API (RouteConditionType, GEP-713); they are
//! spelled here and nowhere else.

/// Who wrote an entry of a status.
pub const CONTROLLER: &str = "weft.dev/mesh";

/// Of a route: an entry for each parent that is a Service. Of a policy: for
/// each ancestor.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Verdict {
    /// Of the object that was judged: one that was deleted and made again is
    /// another one, which nothing was said to.
    pub uid: String,
    pub generation: i64,
    pub entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    pub reference: Reference,
    pub conditions: Vec<Condition>,
}

/// `parentRef` or `ancestorRef`, to the letter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Reference {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub namespace: Option<String>,
    pub name: String,
    pub section: Option<String>,
    pub port: Option<i32>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Condition {
    pub kind: ConditionKind,
    pub holds: bool,
    pub reason: Reason,
    pub message: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ConditionKind {
    Accepted,
    ResolvedRefs,
    /// Only ever true.
    PartiallyInvalid,
    /// Ours: how many proxies apply it.
    Programmed,
}

impl ConditionKind {
    pub const ALL: [Self; 4] = [
        Self::Accepted,
        Self::ResolvedRefs,
        Self::PartiallyInvalid,
        Self::Programmed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::PartiallyInvalid => "PartiallyInvalid",
            Self::Programmed => "weft.dev/Programmed",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    Accepted,
    /// No such Service or port, or one that routes can't attach to.
    NoMatchingParent,
    UnsupportedValue,
    IncompatibleFilters,
    /// Another kind of route holds the port, or an older policy the target.
    Conflicted,
    ResolvedRefs,
    BackendNotFound,
    InvalidKind,
    /// Of policies (GEP-713).
    Invalid,
    TargetNotFound,
    /// Of `Programmed`.
    Programmed,
    Pending,
    Rejected,
    NoProxies,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::NoMatchingParent => "NoMatchingParent",
            Self::UnsupportedValue => "UnsupportedValue",
            Self::IncompatibleFilters => "IncompatibleFilters",
            // GEP-1294 names Go's constant `RouteReasonConflicted`; those are
            // called `RouteReason` and their value.
            Self::Conflicted => "Conflicted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::BackendNotFound => "BackendNotFound",
            Self::InvalidKind => "InvalidKind",
            Self::Invalid => "Invalid",
            Self::TargetNotFound => "TargetNotFound",
            Self::Programmed => "Programmed",
            Self::Pending => "Pending",
            Self::Rejected => "Rejected",
            Self::NoProxies => "NoProxies",
        }
    }
}
