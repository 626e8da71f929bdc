//! exposure/ring
