//! What `regular_attend` computes, several times over, so that no one of them has to be believed alone.

pub mod oracle;
