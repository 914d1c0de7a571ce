//! From the text after `guest:` to the program that is run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::super::Unavailable;

/// The words of a command line, and what its environment has beside ours.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) words: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// Words are divided by blanks; there is no quoting.
    ///
    /// # Errors
    /// There is no word, or a file that is named does not exist.
    pub(super) fn parse(text: &str) -> Result<Self, Unavailable> {
        let mut words: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
        let Some(first) = words.first().cloned() else {
            return Err(Unavailable("`guest:` is followed by no program".to_owned()));
        };
        let mut file = PathBuf::from(&first);
        if let Some(bundled) = bundled(&file) {
            file = bundled;
        }
        match file.extension().and_then(|extension| extension.to_str()) {
            // A shared object has a process of its own too: the Python side of the C interface loads it there.
            Some("py" | "so" | "dylib") => {
                exists(&file)?;
                let python = std::env::var_os("NSA_PYTHON").unwrap_or_else(|| "python3".into());
                words.splice(..1, [python, "-m".into(), "nsa_guest".into(), file.into_os_string()]);
                Ok(Program { words, environment: python_environment() })
            }
            _ => Ok(Program { words, environment: python_environment() }),
        }
    }
}

fn exists(file: &Path) -> Result<(), Unavailable> {
    if file.is_file() { Ok(()) } else { Err(Unavailable(format!("{} is no file", file.display()))) }
}

/// The folders that bundled guests and their package may lie in: below the current one, or where this was built.
fn guest_folders() -> impl Iterator<Item = PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests");
    [PathBuf::from("harness/guests"), built].into_iter().filter(|folder| folder.is_dir())
}

/// `numpy_plain` for `harness/guests/numpy_plain.py`.
fn bundled(name: &Path) -> Option<PathBuf> {
    if name.extension().is_some() || name.components().count() != 1 {
        return None;
    }
    guest_folders().map(|folder| folder.join(name).with_extension("py")).find(|file| file.is_file())
}

/// The Python package, and the checkout's own `.python` folder of installed ones, before what is there already.
fn python_environment() -> Vec<(OsString, OsString)> {
    let checkout = [PathBuf::from(".python"), Path::new(env!("CARGO_MANIFEST_DIR")).join("../.python")];
    let mut folders: Vec<PathBuf> =
        guest_folders().chain(checkout.into_iter().filter(|folder| folder.is_dir())).collect();
    folders.iter_mut().for_each(|folder| {
        if let Ok(absolute) = folder.canonicalize() {
            *folder = absolute;
        }
    });
    let before = std::env::var_os("PYTHONPATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&before).filter(|folder| !folder.as_os_str().is_empty()));
    folders.dedup();
    match std::env::join_paths(folders) {
        Ok(joined) => vec![("PYTHONPATH".into(), joined)],
        Err(_) => Vec::new(),
    }
}
