//! Mutual TLS between proxies, and SPIFFE verification.
