//! sys/channel
