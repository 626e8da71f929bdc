//! logger/drain
