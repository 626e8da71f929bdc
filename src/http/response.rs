//! http/response
