//! Documents: one type for each thing that leaves the program as JSON.
//!
//! A command makes the value; JSON, text and Markdown are renderers of it. The JSON Schema of each kind is derived from its type
//! and stands in `docs/schemas/KIND.json`. Documents of one kind that tell of parts of the same work merge into one ([`Merge`]).

mod detect;
mod fuzz;
mod golden;
mod large;
mod matrix;
mod measured;
mod merge;
mod run;
mod seconds;
mod shown;
mod stored;

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};

use crate::environment::Environment;

pub use detect::Detect;
pub use fuzz::{Drawn, Fuzz, Known, NewFailure, Passing, passing};
pub use golden::Golden;
pub use large::Large;
pub use matrix::{Matrix, Total};
pub use measured::{Benchmarks, Calibrate, Gradcheck, Record};
use merge::add_counts;
pub use merge::{Merge, Unmergeable};
pub use run::Run;
pub use seconds::Seconds;
pub use shown::{Available, Candidates, Described, Oracle, Show, Stored};
pub use stored::{Confirm, Confirmed, Replay, Shrink, Smaller};

/// What a command leaves as JSON.
pub trait Document: Serialize + JsonSchema {
    /// Its kind: the word for the command.
    const KIND: &'static str;
}

/// Version of the form of every document: it grows when a field changes its name or its meaning.
pub const VERSION: u32 = 2;

/// A document as it is written: what it is, where it was made, and what it says.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Envelope<D> {
    /// `nsa-diff/KIND/VERSION`.
    pub schema: String,
    /// The program and the machine that wrote it.
    pub environment: Environment,
    /// What the command found.
    #[serde(flatten)]
    pub content: D,
}

impl<D: Document> Envelope<D> {
    /// A document of this program on this machine.
    pub fn of(content: &D) -> Envelope<&D> {
        Envelope { schema: name(D::KIND), environment: Environment::here(), content }
    }
}

/// `nsa-diff/KIND/VERSION`.
pub fn name(kind: &str) -> String {
    format!("nsa-diff/{kind}/{VERSION}")
}

/// Every kind with the JSON Schema of its documents, envelope included.
pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        schema::<Benchmarks>(),
        schema::<Calibrate>(),
        schema::<Candidates>(),
        schema::<Confirm>(),
        schema::<Detect>(),
        schema::<Fuzz>(),
        schema::<Golden>(),
        schema::<Gradcheck>(),
        schema::<Large>(),
        schema::<Matrix>(),
        schema::<Oracle>(),
        schema::<Record>(),
        schema::<Replay>(),
        schema::<Run>(),
        schema::<Show>(),
        schema::<Shrink>(),
    ]
}

fn schema<D: Document>() -> (&'static str, Schema) {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<Envelope<D>>();
    schema.insert("title".to_owned(), name(D::KIND).into());
    if let Some(own) = schema.pointer_mut("/properties/schema").and_then(|own| own.as_object_mut()) {
        own.insert("const".to_owned(), name(D::KIND).into());
    }
    (D::KIND, schema)
}
