//! loader/mod
