//! Streams from the control plane, turned into snapshots and certificates.
