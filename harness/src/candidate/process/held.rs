//! What has to be ended with this process: process groups and folders, in one list, so that a signal's handler finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

use super::directory::{self, Directory};
use super::owner::{OURS, Owner, kill_marked};

static HELD: Mutex<Held> = Mutex::new(Held { groups: BTreeSet::new(), folders: BTreeMap::new(), started: 0 });

struct Held {
    /// By the number of their leader, none of which has been waited for: a number is not given away before.
    groups: BTreeSet<u32>,
    folders: BTreeMap<u64, Arc<Directory>>,
    /// Children and folders so far, to number them by.
    started: u64,
}

fn held() -> MutexGuard<'static, Held> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that no other child or folder of this process has. The first one is given after what others left is swept.
pub(super) fn number() -> u64 {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(sweep);
    let mut held = held();
    held.started += 1;
    held.started
}

/// Starts a child that leads a process group of its own.
pub(super) fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let mut held = held();
    let child = command.spawn()?;
    held.groups.insert(child.id());
    Ok(child)
}

/// Kills the group of a child that has not been waited for.
pub(super) fn kill_group(leader: u32) {
    if let Some(pid) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        // Nobody is left in it: all the better.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// The child is waited for next: from then on its number may be another's.
pub(super) fn forget_group(leader: u32) {
    held().groups.remove(&leader);
}

pub(super) fn hold_folder(number: u64, folder: &Arc<Directory>) {
    held().folders.insert(number, Arc::clone(folder));
}

pub(super) fn forget_folder(number: u64) {
    held().folders.remove(&number);
}

/// Kills every child with all its descendants and removes every folder, for a process that ends right after.
///
/// A child that another thread is about to start is not started any more: the thread waits for ever.
pub fn end_everything() {
    let held = held();
    held.groups.iter().copied().for_each(kill_group);
    let ours = OURS.to_string();
    kill_marked(|mark| mark.strip_prefix(ours.as_str()).is_some_and(|rest| rest.starts_with('-')));
    held.folders.values().for_each(|folder| folder.remove());
    std::mem::forget(held);
}

/// Kills and removes what a process that is gone had no chance to: it was killed itself.
fn sweep() {
    let gone = |text: &str| Owner::parse(text).is_some_and(|owner| owner.is_gone());
    kill_marked(gone);
    directory::sweep(gone);
}
