//! logger/sink/mod
