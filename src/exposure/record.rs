//! exposure/record
