//! Health, readiness, metrics, dump; drain by unix socket.
