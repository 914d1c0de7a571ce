//! The document of `golden`.

use std::path::PathBuf;

use nsa_corpus::Dtype;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, Merge, Unmergeable};
use crate::campaign::golden::{Answers, Compared, Tensor, compare};
use crate::candidate::Candidate;
use crate::tally::Fields;

/// A candidate beside the answers that PyTorch gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Golden {
    /// The candidate.
    pub candidate: String,
    /// Which fields of its answers are judged.
    pub fields: Fields,
    /// Files that were looked at.
    pub files: usize,
    /// Every tensor that was compared.
    pub tensors: Vec<Tensor>,
    /// Tensors and files of which nothing can be said, each with the reason.
    #[serde(default)]
    pub inconclusive: Vec<String>,
    /// Files that were not compared, each with the reason.
    pub skipped: Vec<String>,
    /// Files that are no golden files, each with the reason.
    pub broken: Vec<String>,
}

impl Golden {
    /// Compares `candidate`, which the command line calls `name`, with every one of `files`.
    pub fn of(name: &str, candidate: &dyn Candidate, files: &[PathBuf], dtype: Option<Dtype>) -> Self {
        let mut answers = Answers::default();
        let (mut skipped, mut broken) = (Vec::new(), Vec::new());
        for file in files {
            match compare(file, candidate, dtype) {
                Compared::Answers(compared) => {
                    answers.tensors.extend(compared.tensors);
                    answers.inconclusive.extend(compared.inconclusive);
                }
                Compared::Skipped(reason) => skipped.push(reason),
                Compared::Broken(reason) => broken.push(reason),
            }
        }
        let fields = Fields::of(candidate);
        let Answers { tensors, inconclusive } = answers;
        Golden { candidate: name.to_owned(), fields, files: files.len(), tensors, inconclusive, skipped, broken }
    }

    /// Tensors beyond their limit.
    pub fn failed(&self) -> usize {
        self.tensors.iter().filter(|tensor| tensor.failed).count()
    }
}

impl Document for Golden {
    const KIND: &'static str = "golden";
}

impl Merge for Golden {
    /// Tensors stand in the order of their files and fields.
    fn merge(self, other: Self) -> Result<Self, Unmergeable> {
        Unmergeable::unless_same("the candidate", &self.candidate, &other.candidate)?;
        Unmergeable::unless_same("what the candidate computes", &self.fields, &other.fields)?;
        let mut tensors = [self.tensors, other.tensors].concat();
        tensors.sort_by(|left, right| (&left.file, left.field).cmp(&(&right.file, right.field)));
        if let Some(two) = tensors.windows(2).find(|two| two[0].file == two[1].file && two[0].field == two[1].field) {
            return Err(Unmergeable::twice(format!("the file {}", two[0].file)));
        }
        let sorted = |one: Vec<String>, other: Vec<String>| {
            let mut lines = [one, other].concat();
            lines.sort();
            lines
        };
        Ok(Golden {
            files: self.files + other.files,
            tensors,
            inconclusive: sorted(self.inconclusive, other.inconclusive),
            skipped: sorted(self.skipped, other.skipped),
            broken: sorted(self.broken, other.broken),
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::campaign::golden::files;
    use crate::document::merge::laws;
    use crate::registry::by_name;

    #[test]
    fn parts_merge_in_any_order_into_what_one_run_gives() {
        let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/golden")).unwrap();
        let oracle = by_name("oracle").unwrap();
        let of = |files: &[PathBuf]| Golden::of("oracle", oracle.as_ref(), files, None);
        let parts = [&files[..1], &files[1..2], &files[2..3]].map(of);
        let whole = laws(parts.clone());
        assert_eq!((whole.files, whole.failed()), (3, 0));
        assert_eq!(whole.tensors.len(), parts.iter().map(|part| part.tensors.len()).sum::<usize>());
        let again = parts[0].clone().merge(whole).unwrap_err().to_string();
        assert!(again.contains(&parts[0].tensors[0].file), "{again}");
        let other = Golden { candidate: "tiled".to_owned(), ..parts[1].clone() };
        assert!(parts[0].clone().merge(other).unwrap_err().to_string().contains("tiled"));
    }
}
