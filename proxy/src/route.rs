//! Which rule, which backend. Pure.
