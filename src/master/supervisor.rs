//! master/supervisor
