//! config/check
