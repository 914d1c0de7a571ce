//! Documents as text and Markdown: the same values that JSON is written from.

pub(super) mod bench;
pub(super) mod calibrate;
pub(super) mod detect;
pub(super) mod detect_page;
pub(super) mod golden;
pub(super) mod matrix;
pub(super) mod show;
