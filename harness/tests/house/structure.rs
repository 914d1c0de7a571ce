//! No circle between the modules of a crate.
//!
//! An arrow goes from the module that mentions `crate::other::…` or `super::other::…` to `other`; a name that a folder's `mod.rs`
//! passes on leads to the module that it comes from. Arrows are drawn between neighbours, the modules of one folder. A folder is
//! one module to its own neighbours, and its `mod.rs` the frame round them: it may use them, and they it. Tests have no arrows.

mod modules;
mod paths;

use std::path::Path;

use std::path::PathBuf;

use crate::root;
use modules::Modules;

/// The circles of today: folder of modules, and the modules in it. The list only gets shorter.
const KNOWN: &[(&str, &[&str])] = &[];

/// The rooms of the harness, from top to bottom: a module may use its own row and those below.
const ROOMS: &[&[&str]] = &[
    &["readers"],
    &["campaign", "detect", "document"],
    &["bench", "calibrate", "localize", "relations", "summary", "tally"],
    &["run"],
    &["report"],
    &["explain"],
    &["judge"],
    &["registry", "version_1"],
    &["mutants"],
    &["candidate"],
    &["environment", "number", "watch"],
];

/// Folders of crates.
fn crates() -> Vec<(String, PathBuf)> {
    let root = root();
    let names = ["corpus", "reference", "gpu", "harness", "harness/cli"];
    let crates = names.map(|name| (format!("{name}/src"), root.join(name).join("src")));
    crates.into_iter().filter(|(_, folder)| folder.is_dir()).collect()
}

#[test]
fn the_modules_of_a_crate_form_no_circle() {
    let mut found = Vec::new();
    for (name, folder) in crates() {
        let modules = Modules::read(&folder);
        assert!(modules.arrows() > 3, "{name} has modules that use each other");
        assert_eq!(modules.globs(), Vec::<String>::new(), "{name}: `use module::*` hides what is used");
        found.extend(modules.circles().into_iter().map(|circle| circle.below(&name)));
    }
    let known = |circle: &modules::Circle| {
        let inside = |names: &[&str]| circle.modules.iter().all(|module| names.contains(&module.as_str()));
        KNOWN.iter().any(|(folder, names)| *folder == circle.folder && inside(names))
    };
    let new: Vec<String> = found.iter().filter(|circle| !known(circle)).map(ToString::to_string).collect();
    assert!(new.is_empty(), "modules that use each other in a circle:\n{}", new.join("\n"));
    for (folder, names) in KNOWN {
        let there = found.iter().any(|circle| {
            circle.folder == *folder && circle.modules.iter().all(|module| names.contains(&module.as_str()))
        });
        assert!(there, "{folder} has no circle of {names:?} any more: take it off the list of known ones");
    }
}

#[test]
fn the_rooms_of_the_harness_use_only_those_below_them() {
    let modules = Modules::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let placed: Vec<&str> = ROOMS.concat();
    let unplaced: Vec<&str> = modules.roots().into_iter().filter(|module| !placed.contains(module)).collect();
    assert!(unplaced.is_empty(), "modules without a room: {unplaced:?}");
    assert_eq!(modules.upward(ROOMS), Vec::<String>::new(), "arrows that lead upwards");
}

#[test]
fn an_arrow_upwards_is_found() {
    let modules = Modules::parse(&[
        ("lib.rs", "mod top; mod bottom;"),
        ("top.rs", "use crate::bottom::B;"),
        ("bottom/mod.rs", "mod inner;"),
        ("bottom/inner.rs", "use crate::top::T;"),
    ]);
    assert_eq!(modules.upward(&[&["top"], &["bottom"]]), ["bottom uses top: crate::top::T"]);
    assert_eq!(modules.upward(&[&["bottom"], &["top"]]), ["top uses bottom: crate::bottom::B"]);
    assert!(modules.upward(&[&["top", "bottom"]]).is_empty());
}

/// The circles of a crate of these files, each as its modules.
fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    Modules::parse(files).circles().into_iter().map(|circle| circle.modules).collect()
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let two = |a: &str, b: &str| circles(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]);
    let back = "use crate::a::A;";
    for a in [
        "use crate::b::B;",
        "use crate::{b};",
        "use super::{c::C, b::{B, D}};",
        "pub(crate) fn f() -> crate::b::B { todo!() }",
        "fn f() { println!(\"{}\", super::b::f()) }",
        "mod inner { use super::super::b::B; }",
        "#[cfg(test)] mod tests { } use crate::b::B;",
        "#[cfg(unix)] use crate::b::B;",
    ] {
        assert_eq!(two(a, back), [["a", "b"]], "{a}");
    }
    for a in [
        "// use crate::b::B;",
        "/// Unlike [`crate::b::B`].\nfn f() { let text = \"crate::b::f\"; }",
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "#[cfg(test)] use crate::b::B; fn f() {}",
        "mod inner { use super::b::B; } use std::b::B;",
    ] {
        assert!(two(a, back).is_empty(), "{a}");
    }
}

#[test]
fn a_circle_through_a_folder_and_through_a_name_passed_on_is_one() {
    let folder = [("lib.rs", "mod a; mod f;"), ("f/mod.rs", "pub mod x; pub mod y; pub use x::X; pub struct Own;")];
    let with = |more: &[(&'static str, &'static str)]| circles(&[&folder[..], more].concat());
    let inner = ("f/x.rs", "use crate::a::A;");
    // A folder is one module to its neighbours, whichever of its files is meant.
    assert_eq!(with(&[inner, ("f/y.rs", ""), ("a.rs", "use crate::f::y::Y;")]), [["a", "f"]]);
    assert_eq!(with(&[inner, ("f/y.rs", ""), ("a.rs", "use crate::f::X;")]), [["a", "f"]]);
    // A name that `mod.rs` passes on is its module's; what `mod.rs` has itself belongs to the frame.
    assert_eq!(with(&[("f/x.rs", "use super::y::Y;"), ("f/y.rs", "use super::X;"), ("a.rs", "")]), [["x", "y"]]);
    assert!(with(&[("f/x.rs", "use super::y::Y;"), ("f/y.rs", "use super::Own;"), ("a.rs", "")]).is_empty());
}

#[test]
fn a_long_circle_is_reported_whole_with_its_arrows() {
    let modules = Modules::parse(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::B; use crate::d::D;"),
        ("b.rs", "use crate::c::C;"),
        ("c.rs", "use crate::a::A;"),
        ("d.rs", ""),
    ]);
    let circle = modules.circles().remove(0).below("some/src");
    assert_eq!(
        circle.to_string(),
        "some/src: a, b, c (a uses b: crate::b::B; b uses c: crate::c::C; c uses a: crate::a::A)"
    );
    assert_eq!(
        Modules::parse(&[("lib.rs", "mod a; mod b;"), ("a.rs", "use super::b::*;"), ("b.rs", "")]).globs(),
        ["a"]
    );
}
