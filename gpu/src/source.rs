//! The kernels' text, embedded in the binary so that a carried executable needs no file beside it.
//!
//! A kernel is flattened before it is compiled: every `#include "…"` is replaced by the header's text, once. The
//! flattened text and the flags are what evidence is tied to by its hash.

use sha2::{Digest, Sha256};

use crate::mutant::Mutant;
use crate::variant::Program;

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

/// The text of a file of `kernels/`.
pub fn text(file: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
}

/// The flattened text of `kernel`, with `mutant`'s replacement made where its file takes part.
///
/// # Panics
/// Where a kernel names a file that is not embedded: our own mistake, and a test's concern.
pub fn flatten(kernel: &str, mutant: Option<&Mutant>) -> String {
    let mut flattened = String::new();
    append(&format!("{kernel}.cu"), mutant, &mut Vec::new(), &mut flattened);
    flattened
}

fn append(file: &str, mutant: Option<&Mutant>, included: &mut Vec<String>, flattened: &mut String) {
    if included.iter().any(|seen| seen == file) {
        return;
    }
    included.push(file.to_owned());
    let original = text(file).unwrap_or_else(|| panic!("kernels/{file} is not embedded"));
    let changed = mutant.filter(|mutant| mutant.file == file).map(|mutant| mutant.apply(original));
    for line in changed.as_deref().unwrap_or(original).lines() {
        match line.strip_prefix("#include \"").and_then(|rest| rest.split('"').next()) {
            Some(header) => append(header, mutant, included, flattened),
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
        hasher.update(flatten(program.kernel, mutant).as_bytes());
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
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut names: Vec<String> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let mut embedded: Vec<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.sort();
        embedded.sort();
        assert_eq!(names, embedded);
    }

    #[test]
    fn each_file_holds_one_kernel_of_its_own_name_and_opens_with_its_formula() {
        for (file, text) in FILES.iter().filter(|(file, _)| file.ends_with(".cu")) {
            let name = file.strip_suffix(".cu").unwrap();
            assert_eq!(text.matches("__global__").count(), 1, "{file}");
            assert!(text.contains(&format!("\n{name}(")), "{file}");
            assert!(text.starts_with(&format!("// {name}: ")), "{file}");
            let parameters = text.split(&format!("\n{name}(")).nth(1).and_then(|rest| rest.split(')').next()).unwrap();
            assert!(parameters.ends_with(" Dims dims"), "{file}: launching passes Dims last");
            for part in ["// Shapes: ", "// Launch: ", "// Accumulation: "] {
                assert!(text.contains(part), "{file} does not say {part}");
            }
        }
    }

    #[test]
    fn a_flattened_kernel_includes_each_header_once() {
        let flattened = flatten("dkdv_plain", None);
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
            let uses = |program: &&Program| flatten(program.kernel, Some(&marked)) != flatten(program.kernel, None);
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
