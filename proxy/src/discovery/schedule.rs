//! Turns of weighted choices: smooth, and exact over the weights' sum.

/// Whose turn it is at a position. Empty when every weight is zero.
#[derive(Clone, Default, Debug)]
pub(crate) struct Schedule {}

impl Schedule {
    pub(crate) fn new(_weights: impl IntoIterator<Item = u32>) -> Self {
        unimplemented!()
    }

    /// Index into the weights; `None` when all are zero.
    pub(crate) fn at(&self, _position: u64) -> Option<usize> {
        unimplemented!()
    }
}
