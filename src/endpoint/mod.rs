//! endpoint/mod
