//! What is compiled, and its hash.
//!
//! A kernel is flattened before it is compiled: every `#include "…"` is replaced by the header's text, once. The
//! flattened text and the flags are what evidence is tied to by its hash.

use sha2::{Digest, Sha256};

use super::far::edits;
use super::files;
use super::mutant::Mutant;
use crate::plan::{Program, Workspace};

/// The flattened text of `program`'s kernel, with `mutant`'s replacement made where its file takes part, then those that set a
/// workspace apart.
///
/// # Panics
/// Where a kernel names a file that is not embedded: our own mistake, and a test's concern.
pub fn flatten(program: &Program, mutant: Option<&Mutant>) -> String {
    let mut flattened = String::new();
    append(&format!("{}.cu", program.kernel), program.far, mutant, &mut Vec::new(), &mut flattened);
    flattened
}

fn append(
    file: &str,
    far: Option<Workspace>,
    mutant: Option<&Mutant>,
    included: &mut Vec<String>,
    flattened: &mut String,
) {
    if included.iter().any(|seen| seen == file) {
        return;
    }
    included.push(file.to_owned());
    let original = files::file(file).unwrap_or_else(|| panic!("{file} is not embedded")).text;
    let mut changed = mutant
        .filter(|mutant| mutant.file == file)
        .map_or_else(|| original.to_owned(), |mutant| mutant.apply(original));
    for edit in far.into_iter().flat_map(edits).filter(|edit| edit.file == file) {
        changed = changed.replace(edit.find, &edit.replacement());
    }
    for line in changed.lines() {
        match line.strip_prefix("#include \"").and_then(|rest| rest.split('"').next()) {
            Some(header) => append(header, far, mutant, included, flattened),
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
    use crate::compile::files::{FILES, File};

    #[test]
    fn a_flattened_kernel_includes_each_header_once() {
        let flattened =
            flatten(crate::plan::catalogue().iter().find(|program| program.kernel == "dkdv_plain").unwrap(), None);
        assert!(!flattened.contains("#include"));
        assert_eq!(flattened.matches("struct Dims {").count(), 1);
        assert_eq!(flattened.matches("struct Task {").count(), 1);
    }

    #[test]
    fn one_changed_character_of_any_file_changes_the_hash() {
        for File { name: file, text, .. } in FILES {
            let programs = crate::plan::catalogue();
            let changed = |replace: String| Mutant {
                name: "changed".to_owned(),
                category: nsa_corpus::Category::Index,
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
                    for position in [start, start + line.len() / 2, start + line.len() - 1] {
                        let mut bytes = text.as_bytes().to_vec();
                        bytes[position] = if bytes[position] == b'~' { b'!' } else { b'~' };
                        let mutant = changed(String::from_utf8(bytes).unwrap());
                        assert_ne!(hash(program, Some(&mutant)), known, "{file}: byte {position}");
                    }
                }
                start += line.len();
            }
        }
    }
}
