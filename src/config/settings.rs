//! config/settings
