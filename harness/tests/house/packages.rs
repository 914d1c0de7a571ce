//! The crates that others may use alone are whole: each carries its readme, its licences and every file that it embeds.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::{read, root};

const CRATES: [&str; 3] = ["corpus", "reference", "gpu"];

/// The files of the package, by path below the crate.
fn packaged(name: &str) -> BTreeSet<PathBuf> {
    let arguments = ["package", "--list", "--allow-dirty", "--offline", "--package", &format!("nsa-{name}")];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
}

/// The paths that the file `source` embeds, each from the crate's folder.
fn embedded(source: &Path, text: &str) -> Vec<PathBuf> {
    let calls = ["include_str!(\"", "include_bytes!(\"", "include_dir!(\"$CARGO_MANIFEST_DIR/"];
    let mut found = Vec::new();
    for call in calls {
        for rest in text.split(call).skip(1) {
            let path = rest.split('"').next().expect("the text ends");
            found.push(if call.contains("_dir") { PathBuf::from(path) } else { source.parent().unwrap().join(path) });
        }
    }
    found.iter().map(|path| plain(path)).collect()
}

/// `path` without `..`; one that leaves its folder keeps it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part != Component::ParentDir || !plain.pop() {
            plain.push(part);
        }
    }
    plain
}

#[test]
fn a_package_holds_its_readme_its_licences_and_what_it_embeds() {
    let mut embeds = 0;
    for name in CRATES {
        let files = packaged(name);
        for needed in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "src/lib.rs"] {
            assert!(files.contains(Path::new(needed)), "nsa-{name} lacks {needed}");
        }
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            assert_eq!(read(&root().join(name).join(licence)), read(&root().join(licence)), "nsa-{name}: {licence}");
        }
        for source in files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs")) {
            for path in embedded(source, &read(&root().join(name).join(source))) {
                let there = files.iter().any(|file| file.starts_with(&path));
                assert!(there, "nsa-{name}: {} embeds {}, which the package lacks", source.display(), path.display());
                embeds += 1;
            }
        }
    }
    assert!(embeds > 20, "{embeds} embedded files were found");
}

#[test]
fn what_leaves_the_crate_is_seen() {
    let source = Path::new("src/deep/list.rs");
    let text = concat!("include_str", "!(\"../../data/a.toml\"), include_bytes", "!(\"../../../b.bin\")");
    assert_eq!(embedded(source, text), [PathBuf::from("data/a.toml"), PathBuf::from("../b.bin")]);
}

#[test]
fn a_package_says_what_it_is_and_needs_no_path() {
    let workspace = read(&root().join("Cargo.toml"));
    for name in CRATES {
        let manifest = read(&root().join(name).join("Cargo.toml"));
        for key in ["description", "readme", "keywords", "categories", "license.workspace"] {
            assert!(manifest.lines().any(|line| line.starts_with(&format!("{key} ="))), "nsa-{name} has no {key}");
        }
        assert!(!manifest.contains("path ="), "nsa-{name} names a path: the workspace gives it, with a version");
        let line = workspace.lines().find(|line| line.starts_with(&format!("nsa-{name} ="))).expect("a dependency");
        assert!(line.contains("path =") && line.contains("version ="), "{line}");
    }
}
