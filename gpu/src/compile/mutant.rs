//! Mutants of the kernels: known faults, planted to see whether the corpus notices.
//!
//! A mutant never stands inside a kernel. It is a text replacement, made before the kernel is compiled, whose `find`
//! must occur exactly once in its file; beside the files of each folder `mutants.toml` holds them, strictly parsed and embedded in
//! the binary.

use nsa_corpus::{Category, Expected};
use serde::{Deserialize, Serialize};

use super::files;
use crate::error::{Error, Kind};
use crate::plan::Rung;

/// The folders of kernels that have mutants, and those.
const FILES: &[(&str, &str)] = &[
    ("shared", include_str!("../../kernels/shared/mutants.toml")),
    ("inversion", include_str!("../../kernels/inversion/mutants.toml")),
    ("plain", include_str!("../../kernels/plain/mutants.toml")),
    ("tensor", include_str!("../../kernels/tensor/mutants.toml")),
];

/// One planted fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// Unique, in words joined by underscores.
    pub name: String,
    /// What kind of mistake it is.
    pub category: Category,
    /// The name of the file that it changes, which lies beside the mutant's own.
    pub file: String,
    /// Text that occurs exactly once in the file.
    pub find: String,
    /// What takes its place.
    pub replace: String,
    /// What should become of it.
    pub expect: Expected,
    /// Which mistake it stands for.
    pub why: String,
    /// Why no case can show it, where it is equivalent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mutant: Vec<Mutant>,
}

impl Mutant {
    /// `text` with the replacement made.
    pub(crate) fn apply(&self, text: &str) -> String {
        text.replacen(&self.find, &self.replace, 1)
    }

    /// The rung whose kernels it changes: that of its folder, and the plainest where all rungs share what it changes.
    pub fn rung(&self) -> Rung {
        let folder = files::file(&self.file).map_or("", |file| file.folder);
        Rung::ALL.into_iter().find(|rung| rung.name() == folder).unwrap_or(Rung::Plain)
    }

    fn check(&self, folder: &str) -> Result<(), String> {
        if self.argument.is_some() != (self.expect == Expected::Equivalent) {
            return Err("an `argument` belongs to what is equivalent, and to nothing else".to_owned());
        }
        let file = files::file(&self.file).filter(|file| file.folder == folder);
        let file = file.ok_or_else(|| format!("there is no kernels/{folder}/{}", self.file))?;
        match file.text.matches(&self.find).count() {
            1 if self.find != self.replace => Ok(()),
            1 => Err("`find` and `replace` are the same".to_owned()),
            count => Err(format!("`find` occurs {count} times in {}", self.file)),
        }
    }
}

/// Every mutant, in the order of the files.
///
/// # Errors
/// A file that is not strictly of the form above; a name that occurs twice; a `find` that does not occur exactly once.
pub fn mutants() -> Result<Vec<Mutant>, Error> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for (folder, text) in FILES {
        for mutant in parse(folder, text)? {
            if mutants.iter().any(|earlier| earlier.name == mutant.name) {
                return Err(Kind::Mutant(format!("{folder}: the name `{}` occurs twice", mutant.name)).into());
            }
            mutants.push(mutant);
        }
    }
    Ok(mutants)
}

/// The mutants of one folder.
fn parse(folder: &str, text: &str) -> Result<Vec<Mutant>, Error> {
    let parsed: File = toml::from_str(text).map_err(|error| Kind::Mutant(format!("{folder}: {error}")))?;
    for mutant in &parsed.mutant {
        mutant.check(folder).map_err(|problem| Kind::Mutant(format!("{folder}: {}: {problem}", mutant.name)))?;
    }
    Ok(parsed.mutant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_changes_exactly_one_place() {
        let mutants = mutants().unwrap();
        assert!(mutants.len() >= 50, "{} mutants", mutants.len());
        for file in files::FILES {
            assert!(mutants.iter().any(|mutant| mutant.file == file.name), "{} has no mutant", file.name);
        }
        let rung = |file: &str| mutants.iter().find(|mutant| mutant.file == file).unwrap().rung();
        let rungs = ["mma.cuh", "dq_tensor.cu", "dq_plain.cu", "delta.cu", "visits.cuh"].map(rung);
        assert_eq!(rungs, [Rung::Tensor, Rung::Tensor, Rung::Plain, Rung::Plain, Rung::Plain]);
    }

    #[test]
    fn a_mutant_that_finds_nothing_or_too_much_is_refused() {
        let mutant = |find: &str| {
            format!(
                "[[mutant]]\nname = \"x\"\ncategory = \"mask\"\nfile = \"delta.cu\"\nfind = \"{find}\"\nreplace = \"y\"\n\
                 expect = \"killed\"\nwhy = \"z\"\n"
            )
        };
        assert!(parse("shared", &mutant("no such text")).unwrap_err().to_string().contains("occurs 0 times"));
        assert!(parse("shared", &mutant("lane")).unwrap_err().to_string().contains("shared: x: `find` occurs "));
        assert!(parse("shared", &(mutant("row % dims.seq_len") + "extra = 1\n")).is_err());
        assert_eq!(parse("shared", &mutant("row % dims.seq_len")).unwrap().len(), 1);
        let elsewhere = parse("plain", &mutant("row % dims.seq_len")).unwrap_err().to_string();
        assert!(elsewhere.contains("there is no kernels/plain/delta.cu"), "{elsewhere}");
    }
}
