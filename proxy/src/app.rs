//! Builds everything and runs it; the only file where all modules meet.
