//! Why a document can't be taken: field, reason, remedy.
//!
//! Made wherever manifests are read, shown by `weft status` with file and
//! document. The reason is meant to be read after the field: `spec.ports[0].port
//! must be 1 to 65535`.

use std::fmt::Display;

use crate::model::Reason;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} {message}: {remedy}")]
pub(crate) struct Refusal {
    /// JSON path: `spec.rules[0].backendRefs[1].port`.
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) remedy: String,
    /// As a status names it.
    pub(crate) reason: Reason,
}

impl Refusal {
    pub(crate) fn new(field: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
            reason: Reason::UnsupportedValue,
        }
    }

    pub(crate) const fn because(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    /// `value` is none of those that this field may have.
    pub(crate) fn value(field: &str, value: impl Display, expected: &str) -> Self {
        Self::new(field, format!("is {value}"), format!("write {expected}"))
    }

    /// Part of the standard that the mesh doesn't carry yet.
    pub(crate) fn unsupported(field: &str) -> Self {
        Self::new(
            field,
            "is not carried by the mesh yet",
            "remove it: the rest of the object would hold without it",
        )
    }

    /// Below `field`.
    pub(crate) fn below(mut self, field: &str) -> Self {
        self.field = match (self.field.is_empty(), self.field.starts_with('[')) {
            (true, _) => field.to_owned(),
            (_, true) => format!("{field}{}", self.field),
            (_, false) => format!("{field}.{}", self.field),
        };
        self
    }
}
