//! What holds the project together beside what it computes: arrows between crates and modules, lengths, licences, packages, true
//! documents, data that no binary carries.

mod left_behind;
mod packages;
mod structure;
mod tidy;

use std::path::{Path, PathBuf};

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
