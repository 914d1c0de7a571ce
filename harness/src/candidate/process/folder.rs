//! A guest's private folder, used through descriptors alone: whatever the guest puts in the place of the folder or of a
//! file, nothing outside the folder is ever read, written or deleted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::directory::{Directory, empty, parents};
use super::{deadline, held};

/// A folder, removed with all its contents when it is dropped, or by [`held::end_everything`].
pub(in crate::candidate) struct Folder {
    number: u64,
    path: PathBuf,
    directory: Arc<Directory>,
}

impl Folder {
    /// Makes a folder, in memory where the system has such a place.
    pub(in crate::candidate) fn new() -> io::Result<Self> {
        let number = held::number();
        let mut failure = io::ErrorKind::NotFound.into();
        for parent in parents() {
            match Directory::make(&parent) {
                Ok((path, directory)) => {
                    let directory = Arc::new(directory);
                    held::hold_folder(number, &directory);
                    return Ok(Folder { number, path, directory });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Its path, to be told to a guest.
    pub(in crate::candidate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file in it.
    ///
    /// # Errors
    /// Something of this name is there already, whatever it is; it cannot be written.
    pub(in crate::candidate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory.own, name, flags, Mode::RUSR | Mode::WUSR)?;
        File::from(file).write_all(bytes)
    }

    /// The contents of a regular file in it, of at most `bytes_max` bytes. What is checked is what is read: one descriptor.
    ///
    /// # Errors
    /// In words: there is no such file, or it is a link, a pipe, a folder, a device, or too long.
    pub(in crate::candidate) fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
        let irregular = || "is no regular file".to_owned();
        // A pipe without a writer would be waited for, were it not for NONBLOCK.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&self.directory.own, name, flags, Mode::empty()).map_err(|error| match error {
            // A link; a socket.
            Errno::LOOP | Errno::NXIO => irregular(),
            other => other.to_string(),
        })?;
        let found = fstat(&file).map_err(|error| error.to_string())?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(irregular());
        }
        let too_long = |bytes: u64| format!("has {bytes} bytes, more than {bytes_max}");
        let bytes = u64::try_from(found.st_size).unwrap_or(u64::MAX);
        if bytes > bytes_max {
            return Err(too_long(bytes));
        }
        let mut contents = Vec::with_capacity(bytes as usize);
        File::from(file).take(bytes_max + 1).read_to_end(&mut contents).map_err(|error| error.to_string())?;
        // It may have grown since.
        if contents.len() as u64 > bytes_max { Err(too_long(contents.len() as u64)) } else { Ok(contents) }
    }

    /// Empties it, so that what one case left is not there for the next; `false` if something is still there at the end of
    /// `limit`.
    pub(in crate::candidate) fn empty(&self, limit: Duration) -> bool {
        empty(&self.directory.own, deadline(limit))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.directory.remove();
        held::forget_folder(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, mkdirat};

    use super::super::directory::{ENTRIES, open, open_parent};
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn only_a_regular_file_of_the_folder_is_read() {
        let (folder, elsewhere) = (Folder::new().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name);
        let target = elsewhere.path().join("target");
        std::fs::write(&target, "secret").unwrap();
        symlink(&target, at("link")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        rustix::fs::mkfifoat(CWD, at("pipe"), Mode::RWXU).unwrap();
        for name in ["link", "folder", "socket", "pipe"] {
            assert_eq!(folder.read(name, 100).unwrap_err(), "is no regular file", "{name}");
            assert_eq!(folder.write(name, b"x").unwrap_err().kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
        folder.write("file", b"0123456789").unwrap();
        assert_eq!(folder.read("file", 10).unwrap(), b"0123456789");
        assert_eq!(folder.read("file", 9).unwrap_err(), "has 10 bytes, more than 9");
        assert!(folder.read("absent", 9).unwrap_err().contains("No such file"));
        assert!(folder.empty(LONG));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(target).unwrap(), "secret");
    }

    #[test]
    fn what_replaces_the_folder_is_not_entered() {
        let elsewhere = tempfile::tempdir().unwrap();
        let canary = elsewhere.path().join("canary");
        std::fs::write(&canary, "sings").unwrap();
        let folder = Folder::new().unwrap();
        let path = folder.path().to_owned();
        folder.write("mine", b"x").unwrap();
        let moved = elsewhere.path().join("moved");
        std::fs::rename(&path, &moved).or_else(|_| std::fs::remove_dir_all(&path)).unwrap();
        symlink(elsewhere.path(), &path).unwrap();
        assert!(folder.read("canary", 100).unwrap_err().contains("No such file"));
        assert!(folder.empty(LONG));
        drop(folder);
        assert!(path.symlink_metadata().is_err(), "the link is left");
        assert_eq!(std::fs::read_to_string(canary).unwrap(), "sings");
    }

    #[test]
    fn a_folder_of_any_depth_and_number_is_removed() {
        let folder = Folder::new().unwrap();
        let path = folder.path().to_owned();
        // Deeper than a path can be long, or descriptors be open.
        let mut deepest = open_parent(&path).unwrap();
        for _ in 0..3000 {
            mkdirat(&deepest, "d", Mode::RWXU).unwrap();
            deepest = open(&deepest, "d").unwrap();
        }
        openat(&deepest, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
        let closed = path.join("closed");
        std::fs::create_dir_all(closed.join("inner/most")).unwrap();
        for folder in [closed.join("inner"), closed] {
            std::fs::set_permissions(folder, PermissionsExt::from_mode(0o000)).unwrap();
        }
        for number in 0..ENTRIES + 10 {
            std::fs::write(path.join(number.to_string()), "").unwrap();
        }
        assert!(!folder.empty(Duration::ZERO));
        drop(folder);
        assert!(path.symlink_metadata().is_err());
    }
}
