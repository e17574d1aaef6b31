//! What `docs/faults.md` promises of each fault: the tests' only source of answers.

use std::{collections::BTreeMap, sync::LazyLock};

/// One row of the document's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) status: u16,
    pub(crate) grpc: u8,
    error: String,
}

impl Fault {
    /// Value of the field that the proxy of `side` answers with.
    pub(crate) fn proxy_status(&self, side: &str) -> String {
        format!(
            "weft-{side}; error={}; details=\"{}\"",
            self.error, self.name
        )
    }
}

static FAULTS: LazyLock<BTreeMap<String, Fault>> = LazyLock::new(|| {
    let rows = include_str!("../../docs/faults.md").lines();
    let faults = rows.filter_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells.get(1)?.strip_prefix("[`")?.split_once('`')?.0;
        Some(Fault {
            name: name.to_owned(),
            status: cells.get(2)?.parse().ok()?,
            grpc: cells.get(3)?.parse().ok()?,
            error: cells.get(4)?.trim_matches('`').to_owned(),
        })
    });
    faults.map(|fault| (fault.name.clone(), fault)).collect()
});

/// # Panics
/// When the document doesn't know it.
#[track_caller]
pub(crate) fn fault(name: &str) -> &'static Fault {
    FAULTS
        .get(name)
        .unwrap_or_else(|| panic!("docs/faults.md has no {name}"))
}

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FAULTS.keys().map(String::as_str)
}
