//! Tells a protocol by the first bytes of either side.
