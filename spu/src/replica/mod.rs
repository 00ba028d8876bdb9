//! One replica as a pure state machine: events and the time in, decisions out.
