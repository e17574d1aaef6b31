//! Where objects were written, so that what is wrong with one names the place.
//!
//! Part of `hub`; `app` keeps it in step with the objects. Sources without
//! files, such as a cluster, say nothing here.

use crate::{
    model::{Key, Moved},
    serve::hub::State,
};

impl State {
    /// To be told before the events that they came with.
    pub(crate) fn set_origins(&mut self, moved: Vec<Moved>) {
        for (key, origin) in moved {
            match origin {
                Some(origin) => drop(self.origins.insert(key, origin)),
                None => drop(self.origins.remove(&key)),
            }
        }
    }

    /// File and number of the document, as a report has them.
    pub(super) fn place_of(&self, object: &Key) -> (String, u32) {
        let origin = self.origins.get(object);
        origin.map_or_else(Default::default, |it| {
            (it.file.clone(), counted(Some(it.document)))
        })
    }

    /// Logs what can't hold of an object now.
    pub(super) fn warn_of(&self, object: &Key) {
        let (file, document) = self.place_of(object);
        for it in self.index.problems_of(object) {
            let (field, message, remedy) = (&it.field, &it.message, &it.remedy);
            tracing::warn!(%object, file, document, field, message, remedy, "an object can't hold as it is");
        }
    }
}

/// People count documents from 1; 0 where there is none.
pub(super) fn counted(document: Option<usize>) -> u32 {
    document.map_or(0, |at| {
        u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1)
    })
}
