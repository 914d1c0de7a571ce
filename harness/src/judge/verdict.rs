//! What a case came to.

use std::fmt;

use nsa_corpus::{Field, foreign};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::Cause;

/// The outcome of one case on one candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", content = "detail", rename_all = "snake_case")]
pub enum Verdict {
    /// Every element within the likely budget (tier H).
    Pass,
    /// Every element within the rigorous budget (tier B), some beyond the likely one.
    Suspect(String),
    /// An element, a field or the run itself is wrong.
    Fail(Failure),
    /// The candidate does not do this case.
    Skip(String),
    /// The case says nothing about the candidate: the machine failed, nothing could have failed, or all that is wrong is NaN
    /// that `0 * NaN` explains.
    Inconclusive(String),
}

/// Which of the verdicts it is, without what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// [`Verdict::Fail`].
    Fail,
    /// [`Verdict::Inconclusive`].
    Inconclusive,
    /// [`Verdict::Pass`].
    Pass,
    /// [`Verdict::Skip`].
    Skip,
    /// [`Verdict::Suspect`].
    Suspect,
}

impl VerdictKind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [VerdictKind; 5] =
        [VerdictKind::Pass, VerdictKind::Suspect, VerdictKind::Fail, VerdictKind::Skip, VerdictKind::Inconclusive];

    /// `"pass"`, `"suspect"`, `"fail"`, `"skip"` or `"inconclusive"`.
    pub fn word(self) -> &'static str {
        match self {
            VerdictKind::Fail => "fail",
            VerdictKind::Inconclusive => "inconclusive",
            VerdictKind::Pass => "pass",
            VerdictKind::Skip => "skip",
            VerdictKind::Suspect => "suspect",
        }
    }
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The class, which stays the same while a case shrinks.
    pub class: Class,
    /// The field, where one is at fault.
    pub field: Option<Field>,
    /// What the error is called, where the candidate gave no answer.
    #[serde(default, skip_serializing_if = "Cause::is_unnamed")]
    pub cause: Cause,
    /// In words, with both values.
    pub message: String,
}

impl Failure {
    /// A failure that has no other cause than what it is.
    pub fn new(class: Class, field: Option<Field>, message: String) -> Self {
        Failure { class, field, cause: Cause::Unnamed, message }
    }
}

/// Why a verdict does not rest on a field that the case asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotJudged {
    /// The candidate does not compute it.
    NotComputed,
    /// It has no elements, as `dsel_scale` without slots.
    Empty,
    /// The declared arithmetic promises nothing of any element: all are excluded.
    Excluded,
    /// Most elements other than 0 would have passed as 0.
    AboveSignal,
}

impl fmt::Display for NotJudged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotJudged::NotComputed => "the candidate does not compute it",
            NotJudged::Empty => "it has no elements",
            NotJudged::Excluded => "the declared arithmetic promises nothing of it",
            NotJudged::AboveSignal => "its budgets are above its values: 0 would pass",
        })
    }
}

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A field is missing or has another shape.
    Shape,
    /// NaN or infinity where the oracle is finite, or a finite number where it is not.
    NonFinite,
    /// The error is above the rigorous budget.
    OverBudget,
    /// An element still holds what the buffer was filled with.
    Unwritten,
    /// Reruns differ by more than was declared.
    Nondeterministic,
    /// The same problem in another arrangement got another answer.
    Relation,
    /// Something outside the outputs was written.
    OutOfBounds,
    /// The kernel does not compile.
    Compile,
    /// The implementation ended while it computed, or answered nonsense.
    Crash,
    /// No answer in time.
    Timeout,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Shape => "shape",
            Class::NonFinite => "non-finite",
            Class::OverBudget => "over budget",
            Class::Unwritten => "unwritten",
            Class::Nondeterministic => "nondeterministic",
            Class::Relation => "relation",
            Class::OutOfBounds => "out of bounds",
            Class::Compile => "compile",
            Class::Crash => "crash",
            Class::Timeout => "timeout",
        })
    }
}

impl Verdict {
    /// Which it is.
    pub fn kind(&self) -> VerdictKind {
        match self {
            Verdict::Pass => VerdictKind::Pass,
            Verdict::Suspect(_) => VerdictKind::Suspect,
            Verdict::Fail(_) => VerdictKind::Fail,
            Verdict::Skip(_) => VerdictKind::Skip,
            Verdict::Inconclusive(_) => VerdictKind::Inconclusive,
        }
    }

    /// Its word, to be printed ([`VerdictKind::word`]).
    pub fn word(&self) -> &'static str {
        self.kind().word()
    }

    /// The failure, if it is one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Verdict::Fail(failure) => Some(failure),
            _ => None,
        }
    }
}

/// On one line, whatever a guest said.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Pass => f.write_str("pass"),
            Verdict::Suspect(detail) | Verdict::Skip(detail) | Verdict::Inconclusive(detail) => {
                write!(f, "{}: {}", self.word(), foreign::line(detail))
            }
            Verdict::Fail(failure) => write!(f, "fail: {}: {}", failure.class, foreign::line(&failure.message)),
        }
    }
}
