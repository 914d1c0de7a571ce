//! The modules of this crate use each other in one direction: no circle, neither of files nor of folders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Uses = BTreeMap<String, BTreeSet<String>>;

/// Every file of `src`, by its module's path, such as `plan::dims`; that of a folder's `mod.rs` is the folder's.
fn modules(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let full = if prefix.is_empty() { name.clone() } else { format!("{prefix}::{name}") };
        match (path.is_dir(), name.as_str()) {
            (true, _) => modules(&path, &full, found),
            (false, "lib" | "tests") => {}
            (false, "mod") => drop(found.insert(prefix.to_owned(), std::fs::read_to_string(&path).unwrap())),
            (false, _) => drop(found.insert(full, std::fs::read_to_string(&path).unwrap())),
        }
    }
}

/// What the file of `module` uses, as its `use` lines outside of tests say.
fn used(module: &str, text: &str, known: &BTreeMap<String, String>) -> BTreeSet<String> {
    let is_folder = known.keys().any(|other| other.starts_with(&format!("{module}::")));
    let parent = if is_folder { module } else { module.rsplit_once("::").map_or("", |(parent, _)| parent) };
    let code = text.split("#[cfg(test)]").next().unwrap();
    let mut used = BTreeSet::new();
    for line in code.lines().map(|line| line.trim_start_matches("pub ").trim_start_matches("pub(crate) ")) {
        let Some(path) = line.strip_prefix("use ") else { continue };
        let path = match (path.strip_prefix("crate::"), path.strip_prefix("super::")) {
            (Some(rest), _) => rest.to_owned(),
            (_, Some(rest)) => format!("{parent}::{rest}"),
            // A folder's own modules.
            _ => format!("{module}::{path}"),
        };
        let names: Vec<&str> = path.split([':', '{', ';', ' ', ',']).filter(|name| !name.is_empty()).collect();
        let longest =
            (1..=names.len()).rev().map(|count| names[..count].join("::")).find(|path| known.contains_key(path));
        used.extend(longest.filter(|other| other != module));
    }
    used
}

/// Modules of which none can come first, because each uses another of them.
fn circle(mut uses: Uses) -> Vec<String> {
    loop {
        let free: Vec<String> = uses.iter().filter(|(_, used)| used.is_empty()).map(|(name, _)| name.clone()).collect();
        if free.is_empty() {
            return uses.into_keys().collect();
        }
        free.iter().for_each(|name| drop(uses.remove(name)));
        uses.values_mut().for_each(|used| used.retain(|name| !free.contains(name)));
    }
}

fn uses() -> Uses {
    let mut files = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    files.iter().map(|(module, text)| (module.clone(), used(module, text, &files))).collect()
}

#[test]
fn no_module_uses_itself_by_way_of_others() {
    let uses = uses();
    assert!(
        uses.len() > 25 && uses["device::self_test"].contains("device::run") && uses["plan"].contains("plan::dims"),
        "{uses:?}"
    );
    assert_eq!(circle(uses.clone()), Vec::<String>::new());
    // The same of whole folders: `device::bound` uses `plan`, so nothing of `plan` uses anything of `device`.
    let folder = |module: &str| module.split("::").next().unwrap().to_owned();
    let mut folders = Uses::new();
    for (module, used) in &uses {
        let others = used.iter().map(|other| folder(other)).filter(|other| *other != folder(module));
        folders.entry(folder(module)).or_default().extend(others);
    }
    assert_eq!(circle(folders), Vec::<String>::new());
}

#[test]
fn a_circle_is_found() {
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses = Uses::new();
        for (module, other) in pairs {
            uses.entry((*module).to_owned()).or_default().insert((*other).to_owned());
            uses.entry((*other).to_owned()).or_default();
        }
        uses
    };
    assert_eq!(circle(uses(&[("a", "b"), ("b", "c")])), Vec::<String>::new());
    assert_eq!(circle(uses(&[("a", "b"), ("b", "c"), ("c", "b")])), ["a", "b", "c"]);
}
