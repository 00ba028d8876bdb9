//! Entries and states for tests.
