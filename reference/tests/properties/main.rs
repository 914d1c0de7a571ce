//! What must hold of any right answer, whatever its numbers: the oracle beside itself on rearranged problems, chosen ones with
//! bounds of their own and generated ones of every shape.

#[path = "../common/mod.rs"]
mod common;

mod chosen;
mod generated;
