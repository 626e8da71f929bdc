//! master/process
