//! Documents as readable text and Markdown: one file for each kind. A renderer sees nothing but the document.

pub(super) mod bench;
pub(super) mod calibrate;
pub(super) mod detect;
pub(super) mod detect_page;
pub(super) mod fuzz;
pub(super) mod golden;
pub(super) mod large;
pub(super) mod matrix;
pub(super) mod run;
pub(super) mod show;
pub(super) mod stored;
