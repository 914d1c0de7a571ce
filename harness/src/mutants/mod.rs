//! Known mistakes, planted to find out whether the harness sees them.
//!
//! `harness/mutants/*.toml` is the catalogue, strictly parsed and embedded: each mutant says what it stands for, where the
//! mistake was seen, what should become of it, and how it is planted: in the rowwise CPU implementation
//! ([`nsa_reference::rowwise`]), or round any candidate, by changing what goes in or comes out ([`decorate`]). Faults of the
//! CUDA kernels are kept with them (`gpu/kernels/*/mutants.toml`) in the same words.

pub mod decorate;
mod mutated;

use std::collections::BTreeSet;
use std::sync::OnceLock;

pub use nsa_corpus::{Category, Expected};
use nsa_corpus::{Field, Inputs};
use nsa_reference::rowwise::Mutation;
use serde::{Deserialize, Serialize};

use decorate::{InputChange, InputTensor, OutputChange};
pub use mutated::{mutated, rowwise_with};

const FILES: &[(&str, &str)] = &[
    ("terms.toml", include_str!("../../mutants/terms.toml")),
    ("numbers.toml", include_str!("../../mutants/numbers.toml")),
    ("gradients.toml", include_str!("../../mutants/gradients.toml")),
    ("memory.toml", include_str!("../../mutants/memory.toml")),
    ("boundaries.toml", include_str!("../../mutants/boundaries.toml")),
];

/// How a mutant is planted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "carrier", rename_all = "snake_case", deny_unknown_fields)]
pub enum Carrier {
    /// In the rowwise implementation.
    Rowwise {
        /// What is wrong in it.
        mutation: Mutation,
    },
    /// Round a candidate: what it is given.
    Inputs {
        /// What is changed.
        change: InputChange,
    },
    /// Round a candidate: what it answers.
    Outputs {
        /// What is changed.
        change: OutputChange,
    },
    /// Round a candidate: it ends without an answer.
    Ends {
        /// For which problems.
        when: EndsWhen,
    },
}

/// The problems for which a candidate ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndsWhen {
    /// Of one token.
    OneToken,
    /// Of more than 64 features.
    DimOver64,
    /// Of groups other than 1, 2, 4, 8 or 16 query heads.
    GroupNoPowerOfTwo,
    /// Of no slot at all.
    NoSlots,
    /// Any, after this many runs.
    AfterRuns(usize),
}

impl EndsWhen {
    /// Whether run number `run` ends without an answer.
    fn holds(self, inputs: &Inputs, run: usize) -> bool {
        let shape = inputs.shape();
        match self {
            EndsWhen::OneToken => shape.seq_len() == 1,
            EndsWhen::DimOver64 => shape.dim() > 64,
            EndsWhen::GroupNoPowerOfTwo => !shape.groups().is_power_of_two() || shape.groups() > 16,
            EndsWhen::NoSlots => shape.num_sel() == 0,
            EndsWhen::AfterRuns(runs) => run >= runs,
        }
    }
}

/// One known mistake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// Unique, in words joined by underscores.
    pub name: String,
    /// What kind of mistake it is.
    pub category: Category,
    /// Which mistake it stands for.
    pub why: String,
    /// Where it was seen, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What should become of it.
    pub expect: Expected,
    /// Why no case can show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
    /// How it is planted.
    pub plant: Carrier,
}

impl Mutant {
    /// What carries it: `"rowwise"`, `"inputs"`, `"outputs"` or `"ends"`.
    pub fn carrier(&self) -> &'static str {
        match self.plant {
            Carrier::Rowwise { .. } => "rowwise",
            Carrier::Inputs { .. } => "inputs",
            Carrier::Outputs { .. } => "outputs",
            Carrier::Ends { .. } => "ends",
        }
    }

    /// Whether it can show in an answer that has these fields alone.
    pub fn shows_in(&self, fields: &BTreeSet<Field>) -> bool {
        let gradient = fields.iter().any(|field| field.is_gradient());
        let out = [Field::Out, Field::SlidingOut].iter().any(|field| fields.contains(field));
        match &self.plant {
            Carrier::Outputs { change } => fields.contains(&change.field),
            Carrier::Inputs { change } => match change.tensor {
                InputTensor::Q | InputTensor::K => true,
                InputTensor::V => out || gradient,
                InputTensor::DOut | InputTensor::DSliding => gradient,
            },
            Carrier::Rowwise { .. } | Carrier::Ends { .. } => true,
        }
    }

    /// Whether it changes what another candidate is given or answers, rather than the rowwise implementation.
    pub fn decorates(&self) -> bool {
        !matches!(self.plant, Carrier::Rowwise { .. })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mutant: Vec<Mutant>,
}

/// The catalogue, in the order of its files.
///
/// # Panics
/// Never: a test reads it.
pub fn mutants() -> &'static [Mutant] {
    static MUTANTS: OnceLock<Vec<Mutant>> = OnceLock::new();
    MUTANTS.get_or_init(|| {
        let read = |(file, text): &(&str, &str)| parse(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        FILES.iter().flat_map(read).collect()
    })
}

fn parse(text: &str) -> Result<Vec<Mutant>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    for mutant in &file.mutant {
        let argued = mutant.argument.is_some() == (mutant.expect == Expected::Equivalent);
        if !argued || mutant.why.trim().is_empty() {
            return Err(format!("{}: needs `why`, and `argument` where it is equivalent", mutant.name));
        }
    }
    Ok(file.mutant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_large_unique_and_of_every_category() {
        let names: BTreeSet<&str> = mutants().iter().map(|mutant| mutant.name.as_str()).collect();
        assert_eq!(names.len(), mutants().len());
        assert!(names.len() >= 80, "{} mutants", names.len());
        let categories: BTreeSet<Category> = mutants().iter().map(|mutant| mutant.category).collect();
        assert_eq!(categories.len(), 16);
    }

    #[test]
    fn a_mutant_with_an_unknown_word_or_without_a_reason_is_refused() {
        let mutant = |rest: &str| format!("[[mutant]]\nname = \"x\"\ncategory = \"mask\"\n{rest}");
        let plant =
            "expect = \"killed\"\nplant = { carrier = \"rowwise\", mutation = { stage = \"terms\", act = \"drop\" } }";
        assert_eq!(parse(&mutant(&format!("why = \"y\"\n{plant}"))).unwrap().len(), 1);
        assert!(parse(&mutant(&format!("why = \" \"\n{plant}"))).is_err());
        assert!(parse(&mutant(&format!("why = \"y\"\nmore = 1\n{plant}"))).is_err());
        assert!(parse(&mutant(&format!("why = \"y\"\n{}", plant.replace("drop", "dorp")))).is_err());
    }
}
