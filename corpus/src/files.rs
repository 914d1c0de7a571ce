//! Writing files: a file is there whole or not at all, and nothing but a regular file is ever replaced.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind};

/// Writes `bytes` beside `path` and renames: a reader sees the old file or the whole new one. A symbolic link stays, and the
/// file that it leads to is replaced.
///
/// # Errors
/// The file cannot be written, or `path` is there and no regular file: a device, a pipe, a folder.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), Error> {
    let path = path.as_ref();
    let write = |target: &Path| -> io::Result<()> {
        let mut file = new_file(folder_of(target))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(target).map_err(|error| error.error)?;
        Ok(())
    };
    target(path).and_then(|target| write(&target).map_err(unwritable)).map_err(|error| error.in_file(path))
}

/// Whether [`write_atomically`] could write to `path` now, found out by making a file beside it; it is gone again afterwards.
///
/// # Errors
/// As [`write_atomically`].
pub fn check_file(path: impl AsRef<Path>) -> Result<(), Error> {
    let path = path.as_ref();
    let tried = target(path).and_then(|target| new_file(folder_of(&target)).map(drop).map_err(unwritable));
    tried.map_err(|error| error.in_file(path))
}

/// Whether files could be written into the folder `path` now. It may still have to be made: then the folder around it counts.
///
/// # Errors
/// `path`, or what it lies in, is no folder, or nothing can be made in it.
pub fn check_folder(path: impl AsRef<Path>) -> Result<(), Error> {
    let path = path.as_ref();
    let there = |folder: &&Path| std::fs::symlink_metadata(or_here(folder)).is_ok();
    let nearest = or_here(path.ancestors().find(there).unwrap_or_else(|| Path::new("")));
    let tried =
        if nearest.is_dir() { new_file(nearest).map(drop).map_err(unwritable) } else { Err(failed("is no folder")) };
    tried.map_err(|error| error.in_file(nearest))
}

fn unwritable(error: io::Error) -> Error {
    failed(format!("cannot be written: {error}"))
}

/// The file that is replaced, or made, when `path` is written.
fn target(path: &Path) -> Result<PathBuf, Error> {
    if path.file_name().is_none() {
        return Err(failed("names no file"));
    }
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path.to_owned()),
        Err(error) => return Err(unwritable(error)),
        Ok(found) if found.is_file() => return Ok(path.to_owned()),
        Ok(_) => {}
    }
    let target = path.canonicalize().map_err(unwritable)?;
    if target.is_file() { Ok(target) } else { Err(failed("is no regular file: it is not overwritten")) }
}

fn folder_of(file: &Path) -> &Path {
    or_here(file.parent().unwrap_or_else(|| Path::new("")))
}

/// The current folder for the empty path.
fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

#[cfg(unix)]
fn new_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    // Readable as any other new file, less what the user's umask takes away.
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o666)).tempfile_in(folder)
}

#[cfg(not(unix))]
fn new_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::NamedTempFile::new_in(folder)
}

fn failed(message: impl AsRef<str>) -> Error {
    Error::new(ErrorKind::File, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_and_replaced_and_checking_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        check_file(&path).unwrap();
        check_folder(folder.path().join("a/b/c")).unwrap();
        assert!(names(folder.path()).is_empty());
        for text in ["first", "second"] {
            write_atomically(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["report.json"]);
    }

    #[test]
    fn what_is_no_regular_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| {
            for tried in [write_atomically(path, b"x"), check_file(path)] {
                let error = tried.unwrap_err().to_string();
                assert!(error.contains("no regular file") && error.contains(&crate::foreign::path(path)), "{error}");
            }
        };
        refused(folder.path());
        assert!(check_file("").unwrap_err().to_string().contains("names no file"));
        #[cfg(unix)]
        {
            refused(Path::new("/dev/null"));
            let link = folder.path().join("link");
            std::os::unix::fs::symlink("/dev/null", &link).unwrap();
            refused(&link);
            assert!(link.is_symlink());
            let socket = folder.path().join("socket");
            let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            refused(&socket);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_leads_to_the_new_contents() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, dangling] = ["file", "link", "dangling"].map(|name| folder.path().join(name));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        write_atomically(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        std::os::unix::fs::symlink("nowhere/at/all", &dangling).unwrap();
        assert!(write_atomically(&dangling, b"new").is_err());
    }

    #[test]
    fn a_file_is_no_folder_to_write_into() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "contents").unwrap();
        for path in [file.clone(), file.join("below")] {
            assert!(check_folder(&path).unwrap_err().to_string().contains("no folder"), "{}", path.display());
            assert!(check_file(path.join("x")).is_err());
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "contents");
    }
}
