//! master/listen
