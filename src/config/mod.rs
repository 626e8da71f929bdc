//! What an operator writes, read and checked: the experiments file ([`check`])
//! and the settings ([`settings`]). Every fault is reported at once, with its
//! place, what is wrong and what would be right; nothing half-applies.

pub mod check;
pub mod settings;
