//! From many failures to a few, each stored once: the known ones, the minimal cases, the files.

pub mod known;
pub mod minimize;
pub mod records;
pub mod store;
pub mod waiver;
