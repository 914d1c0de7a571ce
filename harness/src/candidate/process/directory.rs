//! The descriptors that a private folder is used through: what is put in its place, or in the place of what it holds, is never
//! entered, and nothing through a link is opened, emptied or removed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, fstat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::getuid;

use super::deadline;
use super::owner::OURS;

const PREFIX: &str = "nsa-guest-";
/// Entries that are listed at a time: a folder of millions is emptied in as many rounds as it takes.
pub(super) const ENTRIES: usize = 4096;
/// How long removing a folder may take. What is left then was made meanwhile, and is swept by the next run.
const REMOVING: Duration = Duration::from_secs(10);

/// Its descriptors: the folder's own, and that of the folder it stands in, under `name`.
pub(super) struct Directory {
    parent: OwnedFd,
    name: CString,
    pub(super) own: OwnedFd,
}

impl Directory {
    pub(super) fn make(parent: &Path) -> io::Result<(PathBuf, Self)> {
        let made = tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", *OURS)).tempdir_in(parent)?;
        let name = made.path().file_name().expect("made with one").to_owned();
        let parent = open_parent(parent)?;
        let own = open(&parent, &name)?;
        let name = CString::new(name.into_encoded_bytes())?;
        fchmod(&own, Mode::RWXU)?;
        Ok((made.keep(), Directory { parent, name, own }))
    }

    /// Removes it and what is in it. Of what was put in its place only the name goes, never what the name leads to.
    pub(super) fn remove(&self) {
        empty(&self.own, deadline(REMOVING));
        remove_name(&self.parent, &self.name);
    }
}

/// Where a private folder may stand.
pub(super) fn parents() -> [PathBuf; 2] {
    ["/dev/shm".into(), std::env::temp_dir()]
}

/// Opens a folder that is the system's own, or that its user chose: links are followed.
pub(super) fn open_parent(path: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a folder, and nothing through a link.
pub(super) fn open(parent: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes an empty folder, or anything else that is no folder.
fn remove_name(parent: &OwnedFd, name: &CStr) -> bool {
    unlinkat(parent, name, AtFlags::empty()).is_ok() || unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok()
}

pub(super) fn empty(folder: &OwnedFd, until: Instant) -> bool {
    // A guest may have taken its own rights away.
    let _ = fchmod(folder, Mode::RWXU);
    loop {
        let names = names(folder);
        if names.is_empty() {
            return true;
        }
        let mut fewer = false;
        for name in names {
            if Instant::now() > until {
                return false;
            }
            fewer |= remove_name(folder, &name) || move_up(folder, &name);
        }
        if !fewer {
            return false;
        }
    }
}

/// Moves what the folder `name` of `folder` holds up into `folder`: folders of any depth are emptied without recursion, by
/// two descriptors.
fn move_up(folder: &OwnedFd, name: &CStr) -> bool {
    static MOVED: AtomicU64 = AtomicU64::new(0);
    let Ok(inner) = open(folder, name).or_else(|_| make_accessible(folder, name).and_then(|()| open(folder, name)))
    else {
        return false;
    };
    let _ = fchmod(&inner, Mode::RWXU);
    let mut fewer = false;
    for child in names(&inner) {
        let free = format!("moved-up-{}", MOVED.fetch_add(1, Ordering::Relaxed));
        let rename = || renameat(&inner, &*child, folder, &*free);
        fewer |= rename().or_else(|_| make_accessible(&inner, &child).and_then(|()| rename())).is_ok();
    }
    fewer
}

/// Gives us all rights to a folder, through a descriptor: by its name a link in its place would be followed.
#[cfg(target_os = "linux")]
fn make_accessible(parent: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(parent, name, flags, Mode::empty())?;
    rustix::fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU)
}

/// Elsewhere there is no such descriptor: the folder stays.
#[cfg(not(target_os = "linux"))]
fn make_accessible(_parent: &OwnedFd, _name: &CStr) -> Result<(), Errno> {
    Err(Errno::ACCESS)
}

/// Some of what is in a folder.
fn names(folder: &OwnedFd) -> Vec<CString> {
    let Ok(listing) = Dir::read_from(folder) else { return Vec::new() };
    let names = listing.flatten().map(|entry| entry.file_name().to_owned());
    names.filter(|name| !matches!(name.to_bytes(), b"." | b"..")).take(ENTRIES).collect()
}

/// Removes folders of ours, of which `gone` says that their owner is.
pub(super) fn sweep(gone: impl Fn(&str) -> bool) {
    let until = deadline(REMOVING);
    for parent in parents() {
        let stale = |name: &std::ffi::OsStr| name.to_str()?.strip_prefix(PREFIX).map(&gone);
        let listing = std::fs::read_dir(&parent).into_iter().flatten().flatten();
        let names = listing.map(|entry| entry.file_name()).filter(|name| stale(name) == Some(true));
        let Ok(parent) = open_parent(&parent) else { continue };
        for name in names.filter_map(|name| CString::new(name.into_encoded_bytes()).ok()) {
            let own = |uid: u32| uid == getuid().as_raw();
            if let Ok(folder) = open(&parent, &*name)
                && fstat(&folder).is_ok_and(|found| own(found.st_uid))
            {
                empty(&folder, until);
            }
            if statat(&parent, &*name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|found| own(found.st_uid)) {
                remove_name(&parent, &name);
            }
        }
    }
}
