//! What an object is called.
//!
//! A pod's name stands in a dozen tables of a control plane, and there may be a
//! hundred thousand pods: whoever has a name has the same one.

use std::{fmt, ops::Deref, sync::Arc};

/// "namespace/name". Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Name(Arc<Named>);

/// The parts of a name.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Named {
    pub namespace: String,
    pub name: String,
}

impl Name {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(Arc::new(Named {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }))
    }
}

impl Deref for Name {
    type Target = Named;

    fn deref(&self) -> &Named {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
