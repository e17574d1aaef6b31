//! One log event and one set of metrics per outcome.
