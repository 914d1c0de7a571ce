//! The kernels' text, embedded in the binary so that a carried executable needs no file beside it.
//!
//! A kernel is flattened before it is compiled: every `#include "…"` is replaced by the header's text, once. The
//! flattened text and the flags are what evidence is tied to by its hash.

use sha2::{Digest, Sha256};

use crate::mutant::Mutant;
use crate::variant::Program;
use crate::workspace::Workspace;

/// Every file of `kernels/`: name and text.
pub const FILES: &[(&str, &str)] = &[
    ("common.cuh", include_str!("../kernels/common.cuh")),
    ("mma.cuh", include_str!("../kernels/mma.cuh")),
    ("rows.cuh", include_str!("../kernels/rows.cuh")),
    ("tasks.cuh", include_str!("../kernels/tasks.cuh")),
    ("visits.cuh", include_str!("../kernels/visits.cuh")),
    ("delta.cu", include_str!("../kernels/delta.cu")),
    ("dkdv_merge.cu", include_str!("../kernels/dkdv_merge.cu")),
    ("dkdv_plain.cu", include_str!("../kernels/dkdv_plain.cu")),
    ("dkdv_tensor.cu", include_str!("../kernels/dkdv_tensor.cu")),
    ("dq_plain.cu", include_str!("../kernels/dq_plain.cu")),
    ("dq_tensor.cu", include_str!("../kernels/dq_tensor.cu")),
    ("forward_plain.cu", include_str!("../kernels/forward_plain.cu")),
    ("forward_tensor.cu", include_str!("../kernels/forward_tensor.cu")),
    ("visit_count.cu", include_str!("../kernels/visit_count.cu")),
    ("visit_fill.cu", include_str!("../kernels/visit_fill.cu")),
    ("visit_scan.cu", include_str!("../kernels/visit_scan.cu")),
];

/// The kernels that check the others; no result is theirs.
pub const CHECKS: &[(&str, &str)] = &[
    ("poison.cu", include_str!("../kernels/checks/poison.cu")),
    ("probe.cu", include_str!("../kernels/checks/probe.cu")),
];

/// The text of a file of `kernels/`.
pub fn text(file: &str) -> Option<&'static str> {
    FILES.iter().chain(CHECKS).find(|(name, _)| *name == file).map(|(_, text)| *text)
}

/// The flattened text of `program`'s kernel, with `mutant`'s replacement made where its file takes part, then those that set a
/// workspace apart.
///
/// # Panics
/// Where a kernel names a file that is not embedded: our own mistake, and a test's concern.
pub fn flatten(program: &Program, mutant: Option<&Mutant>) -> String {
    let mut flattened = String::new();
    append(&format!("{}.cu", program.kernel), program.apart, mutant, &mut Vec::new(), &mut flattened);
    flattened
}

fn append(
    file: &str,
    apart: Option<Workspace>,
    mutant: Option<&Mutant>,
    included: &mut Vec<String>,
    flattened: &mut String,
) {
    if included.iter().any(|seen| seen == file) {
        return;
    }
    included.push(file.to_owned());
    let original = text(file).unwrap_or_else(|| panic!("kernels/{file} is not embedded"));
    let mut changed = mutant
        .filter(|mutant| mutant.file == file)
        .map_or_else(|| original.to_owned(), |mutant| mutant.apply(original));
    for edit in apart.into_iter().flat_map(Workspace::edits).filter(|edit| edit.file == file) {
        changed = changed.replace(edit.find, &edit.replacement());
    }
    for line in changed.lines() {
        match line.strip_prefix("#include \"").and_then(|rest| rest.split('"').next()) {
            Some(header) => append(header, apart, mutant, included, flattened),
            None if line == "#pragma once" => {}
            None => {
                flattened.push_str(line);
                flattened.push('\n');
            }
        }
    }
}

/// SHA-256, in hexadecimal, of the flattened sources and the flags of `programs`, whatever the architecture.
pub fn hash(programs: &[Program], mutant: Option<&Mutant>) -> String {
    let mut hasher = Sha256::new();
    for program in programs {
        for part in program.flags() {
            hasher.update(part.as_bytes());
            hasher.update([0]);
        }
        hasher.update(flatten(program, mutant).as_bytes());
        hasher.update([0]);
    }
    hex(&hasher.finalize())
}

/// Two hexadecimal digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let kernels = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let files = [kernels.clone(), kernels.join("checks")].into_iter().flat_map(|folder| folder.read_dir().unwrap());
        let files = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let mut names: Vec<String> = files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        let mut embedded: Vec<String> = FILES.iter().chain(CHECKS).map(|(name, _)| (*name).to_owned()).collect();
        names.sort();
        embedded.sort();
        assert_eq!(names, embedded);
    }

    #[test]
    fn each_file_holds_one_kernel_of_its_own_name_and_opens_with_its_formula() {
        for (file, text) in FILES.iter().chain(CHECKS).filter(|(file, _)| file.ends_with(".cu")) {
            let name = file.strip_suffix(".cu").unwrap();
            assert_eq!(text.matches("__global__").count(), 1, "{file}");
            assert!(text.contains(&format!("\n{name}(")), "{file}");
            assert!(text.starts_with(&format!("// {name}: ")), "{file}");
            for part in ["// Shapes: ", "// Launch: ", "// Accumulation: "] {
                assert!(text.contains(part), "{file} does not say {part}");
            }
        }
    }

    #[test]
    fn a_flattened_kernel_includes_each_header_once() {
        let flattened = flatten(&Program::new("dkdv_plain", nsa_corpus::Element::F32, Vec::new()), None);
        assert!(!flattened.contains("#include"));
        assert_eq!(flattened.matches("struct Dims {").count(), 1);
        assert_eq!(flattened.matches("struct Task {").count(), 1);
    }

    #[test]
    fn one_changed_character_of_any_file_changes_the_hash() {
        for (file, text) in FILES {
            let programs = crate::variant::catalogue();
            let changed = |replace: String| Mutant {
                name: "changed".to_owned(),
                genre: nsa_corpus::Genre::Index,
                file: (*file).to_owned(),
                find: (*text).to_owned(),
                replace,
                expect: nsa_corpus::Expected::Killed,
                why: String::new(),
                argument: None,
            };
            let marked = changed(format!("{text}// marked\n"));
            let uses = |program: &&Program| flatten(program, Some(&marked)) != flatten(program, None);
            let program =
                std::slice::from_ref(programs.iter().find(uses).unwrap_or_else(|| panic!("{file} is not used")));
            let known = hash(program, None);
            let mut start = 0;
            for line in text.split_inclusive('\n') {
                // A changed name of a header names none: `flatten` panics.
                if !line.starts_with("#include") {
                    for place in [start, start + line.len() / 2, start + line.len() - 1] {
                        let mut bytes = text.as_bytes().to_vec();
                        bytes[place] = if bytes[place] == b'~' { b'!' } else { b'~' };
                        let mutant = changed(String::from_utf8(bytes).unwrap());
                        assert_ne!(hash(program, Some(&mutant)), known, "{file}: byte {place}");
                    }
                }
                start += line.len();
            }
        }
    }
}
