//! What `regular_attend` computes, and independent ways to know it: the readable transcription ([`regular_attend`]), a
//! checker of gradients, and a CPU candidate.

pub mod regular_attend;
pub mod tiled;
