//! http/request
