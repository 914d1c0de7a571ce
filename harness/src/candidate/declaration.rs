//! What an implementation declares of itself, as one value: who wraps an implementation passes it on whole.

use std::collections::{BTreeMap, BTreeSet};

use nsa_corpus::{Arithmetic, Case, Dtype, Field, Sizes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Candidate;

/// What an implementation declares of the answer to one problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// Its arithmetic; the error budgets follow from it.
    pub arithmetic: Arithmetic,
    /// The fields that it computes; another one is not judged.
    pub fields: BTreeSet<Field>,
    /// The fields of which reruns may differ by the order of additions. Every other field is bitwise.
    pub bounded: BTreeSet<Field>,
    /// Whether a row never reads what it does not attend to. An implementation that multiplies such values by weights of 0
    /// instead (a tensor core's tile, the PyTorch function) lets NaN through `0 * NaN`: docs/semantics.md, "What a tile touches".
    pub reads_only_what_it_attends_to: bool,
    /// What it says of where it runs: versions, the device. Null where there is nothing to say.
    pub environment: Value,
}

/// What an implementation promises of reruns with the same inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Determinism {
    /// The same bits.
    Bitwise,
    /// The same up to the order of additions (atomics).
    Bounded,
}

impl Declaration {
    /// The strictest declaration with this arithmetic: every field, the same bits each time, nothing read that is not attended to.
    pub fn strict(arithmetic: Arithmetic) -> Self {
        Declaration {
            arithmetic,
            fields: Field::ALL.into_iter().collect(),
            bounded: BTreeSet::new(),
            reads_only_what_it_attends_to: true,
            environment: Value::Null,
        }
    }

    /// What `candidate` declares of a small ordinary problem in f32: for a list of candidates, where no problem is at hand.
    ///
    /// # Panics
    /// Never: the problem is a valid one.
    pub fn typical(candidate: &dyn Candidate) -> Self {
        let sizes = Sizes {
            batch: 1,
            q_heads: 1,
            kv_heads: 1,
            sel_heads: 1,
            num_sel: 1,
            seq_len: 16,
            dim: 16,
            value_dim: 16,
            block_size: 16,
        };
        let inputs = Case::ordinary(sizes, 1).materialize(Dtype::F32).expect("an ordinary problem");
        candidate.declaration(&inputs)
    }

    /// Whether it computes `field`.
    pub fn computes(&self, field: Field) -> bool {
        self.fields.contains(&field)
    }

    /// What reruns give for `field`.
    pub fn determinism(&self, field: Field) -> Determinism {
        if self.bounded.contains(&field) { Determinism::Bounded } else { Determinism::Bitwise }
    }

    /// What reruns give, for every field.
    pub fn reruns(&self) -> BTreeMap<Field, Determinism> {
        Field::ALL.into_iter().map(|field| (field, self.determinism(field))).collect()
    }
}
