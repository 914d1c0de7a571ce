//! The modules of a crate and the arrows between them, read from its files' tokens: comments and texts have none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use super::paths::{Mentioned, mentioned};

/// A module by its names from the crate's root on.
type Module = Vec<String>;

/// The modules of one crate.
pub(crate) struct Modules {
    files: BTreeMap<Module, Mentioned>,
}

/// Modules of one folder of which each uses the others, directly or not.
pub(crate) struct Circle {
    pub(crate) folder: String,
    pub(crate) modules: Vec<String>,
    /// Between them: who, whom, and the path that says so.
    arrows: Vec<[String; 3]>,
}

impl Circle {
    /// The same circle, its folder said to lie below `folder`.
    pub(crate) fn below(mut self, folder: &str) -> Self {
        self.folder = [folder, &self.folder].join("/").trim_end_matches('/').to_owned();
        self
    }
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrows: Vec<String> =
            self.arrows.iter().map(|[from, to, path]| format!("{from} uses {to}: {path}")).collect();
        write!(f, "{}: {} ({})", self.folder, self.modules.join(", "), arrows.join("; "))
    }
}

impl Modules {
    /// The crate whose sources are below `folder`.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut files = Vec::new();
        read_folder(folder, "", &mut files);
        // Beside a library, the binary's file is a crate of its own.
        if files.iter().any(|(name, _)| name == "lib.rs") {
            files.retain(|(name, _)| name != "main.rs");
        }
        Self::parse(&files)
    }

    /// The crate of these files, by path below `src`.
    pub(crate) fn parse(files: &[(impl AsRef<str>, impl AsRef<str>)]) -> Self {
        let files = files.iter().map(|(name, text)| {
            let name = name.as_ref().strip_suffix(".rs").expect("a file of Rust");
            let mut module: Module = name.split('/').map(str::to_owned).collect();
            module.pop_if(|last| ["lib", "main", "mod"].contains(&last.as_str()));
            (module, mentioned(name, text.as_ref()))
        });
        Modules { files: files.collect() }
    }

    /// Number of arrows between neighbours.
    pub(crate) fn arrows(&self) -> usize {
        self.neighbours().values().map(BTreeMap::len).sum()
    }

    /// The modules that import everything of another one.
    pub(crate) fn globs(&self) -> Vec<String> {
        let globs = self.files.iter().filter(|(module, mentioned)| {
            mentioned
                .paths
                .iter()
                .any(|path| path.last().is_some_and(|last| last == "*") && self.target(module, path).is_some())
        });
        globs.map(|(module, _)| module.join("/")).collect()
    }

    /// Every circle, by folder.
    pub(crate) fn circles(&self) -> Vec<Circle> {
        let mut circles = Vec::new();
        for (folder, arrows) in self.neighbours() {
            let names: BTreeSet<&String> = arrows.keys().flat_map(|(from, to)| [from, to]).collect();
            let reached: BTreeMap<&String, BTreeSet<&String>> =
                names.iter().map(|name| (*name, reachable(name, &arrows))).collect();
            let mut seen = BTreeSet::new();
            for name in names {
                let circle: BTreeSet<&String> =
                    reached[name].iter().copied().filter(|other| reached[other].contains(name)).collect();
                if circle.len() > 1 && !seen.contains(name) {
                    seen.extend(circle.iter().copied());
                    let inside = arrows.iter().filter(|((from, to), _)| circle.contains(from) && circle.contains(to));
                    circles.push(Circle {
                        folder: folder.join("/"),
                        modules: circle.iter().map(|name| (*name).clone()).collect(),
                        arrows: inside.map(|((from, to), path)| [from.clone(), to.clone(), path.clone()]).collect(),
                    });
                }
            }
        }
        circles
    }

    /// The modules of the crate's root, by name.
    pub(crate) fn roots(&self) -> BTreeSet<&str> {
        self.files.keys().filter_map(|module| module.first()).map(String::as_str).collect()
    }

    /// The arrows between the crate's root modules that lead from a lower row of `rooms` to a higher one.
    pub(crate) fn upward(&self, rooms: &[&[&str]]) -> Vec<String> {
        let row = |module: &str| rooms.iter().position(|row| row.contains(&module));
        let roots = self.neighbours().remove(&Module::new()).unwrap_or_default();
        let up = roots.iter().filter(|((from, to), _)| row(from) > row(to));
        up.map(|((from, to), path)| format!("{from} uses {to}: {path}")).collect()
    }

    /// The arrows between the modules of each folder, each with a path that says so.
    fn neighbours(&self) -> BTreeMap<Module, BTreeMap<(String, String), String>> {
        let mut folders: BTreeMap<Module, BTreeMap<(String, String), String>> = BTreeMap::new();
        for (from, mentioned) in &self.files {
            for path in &mentioned.paths {
                let Some(to) = self.target(from, path) else { continue };
                let common = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
                if let (Some(one), Some(other)) = (from.get(common), to.get(common)) {
                    let arrows = folders.entry(from[..common].to_vec()).or_default();
                    arrows.entry((one.clone(), other.clone())).or_insert_with(|| path.join("::"));
                }
            }
        }
        folders
    }

    /// The module that holds what `path` means in `from`; `None` for another crate's.
    fn target(&self, from: &Module, path: &[String]) -> Option<Module> {
        self.resolve(from, path, &mut BTreeSet::new())
    }

    fn resolve(&self, from: &Module, path: &[String], seen: &mut BTreeSet<(Module, String)>) -> Option<Module> {
        let child = |at: &Module, name: &String| [&at[..], std::slice::from_ref(name)].concat();
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Module::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => (from.clone(), path),
            // A path of this edition begins in its own module, or is another crate's.
            _ if self.files.contains_key(&child(from, &path[0])) => (from.clone(), path),
            _ => return None,
        };
        while let Some((name, after)) = rest.split_first() {
            let passed = self.files.get(&at).and_then(|file| file.names.get(name));
            if name == "super" {
                at.pop();
            } else if self.files.contains_key(&child(&at, name)) {
                at = child(&at, name);
            } else if let Some(passed) = passed.filter(|_| seen.insert((at.clone(), name.clone()))) {
                return self.resolve(&at, &[passed, after].concat(), seen).or(Some(at));
            } else {
                break;
            }
            rest = after;
        }
        Some(at)
    }
}

fn reachable<'a>(from: &'a String, arrows: &'a BTreeMap<(String, String), String>) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        for (_, to) in arrows.keys().filter(|(from, _)| from == name) {
            if found.insert(to) {
                open.push(to);
            }
        }
    }
    found
}

fn read_folder(folder: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let name = format!("{prefix}{}", path.file_name().expect("a name").to_string_lossy());
        if path.is_dir() {
            read_folder(&path, &format!("{name}/"), files);
        } else if name.ends_with(".rs") {
            files.push((name, std::fs::read_to_string(&path).expect("readable sources")));
        }
    }
}
