//! Accepts connections and finds where they were going.
