//! master/heritage
