//! From many failures to a few, each stored once: the known ones, the minimal cases, the files.

pub mod calibration;
pub mod confirm;
pub mod failures;
pub mod fuzz;
pub mod golden;
pub mod gradients;
pub mod known;
pub mod matrix;
pub mod minimize;
pub mod plan;
pub mod recorder;
pub mod records;
pub mod replay;
pub mod run;
pub mod shrink;
pub mod store;
pub mod waiver;
