//! Limits and budgets. Pure.
