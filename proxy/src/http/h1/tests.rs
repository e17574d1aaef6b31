//! What the codec accepts, refuses and writes.
