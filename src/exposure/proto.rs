//! exposure/proto
