//! http
pub mod connection;
pub mod json;
pub mod query;
pub mod request;
pub mod response;
