//! sys/socket
