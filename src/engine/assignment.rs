//! engine/assignment
