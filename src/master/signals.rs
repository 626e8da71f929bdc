//! master/signals
