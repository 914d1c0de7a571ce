//! Child processes, for CUDA workers and guests alike: started, fed, awaited, ended and replaced in one place.
//!
//! Three rules hold for every child. Nothing that it does blocks us: every write and every read has a time limit. Nothing
//! that it does exhausts us: lines and frames have a longest length, and of its stderr only the end is kept. Nothing of it
//! is left behind: its whole process group is killed, whether or not the child itself still lives, and so is what left the
//! group but kept the mark that the child was started with; its folder is removed. [`end_everything`] does the same at
//! once, for a process that is about to end, and where even that was not possible (SIGKILL) the next run sweeps.

mod child;
mod directory;
mod folder;
pub(super) mod frame;
mod held;
mod owner;
mod pool;

use std::time::{Duration, Instant};

pub(super) use self::child::{Process, Silence};
pub(super) use self::folder::Folder;
pub use self::held::end_everything;
pub(super) use self::owner::end_with;
pub(super) use self::pool::{After, Pool};

/// When `limit` is over from now on; one beyond what a clock counts is as good as ten years.
pub(in crate::candidate) fn deadline(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now + Duration::from_secs(10 * 365 * 86_400))
}
