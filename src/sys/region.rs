//! sys/region
