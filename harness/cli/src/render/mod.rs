//! Documents as readable text: one file for each kind. A renderer sees nothing but the document.

pub(super) mod fuzz;
pub(super) mod large;
pub(super) mod run;
pub(super) mod stored;
