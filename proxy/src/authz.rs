//! May this peer do this? Pure.
