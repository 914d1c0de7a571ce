//! What a run of several cases came to: verdicts counted, and whether anything was tested at all.

use std::collections::BTreeMap;
use std::fmt;

use nsa_corpus::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::{Candidate, Declaration};
use crate::judge::verdict::{Verdict, VerdictKind};

/// Verdicts counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many of each kind; one that there is none of is left out.
    pub verdicts: BTreeMap<VerdictKind, usize>,
    /// How many cases were skipped for each reason.
    pub skips: BTreeMap<String, usize>,
    /// Why the first inconclusive case is that.
    pub inconclusive: Option<String>,
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Something was tested, and nothing failed.
    Passed,
    /// Something failed.
    Failed,
    /// No case passed or failed, and why: that is no success.
    NothingTested(String),
}

impl Tally {
    /// The count of all `verdicts`.
    pub fn of<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> Self {
        let mut tally = Tally::default();
        verdicts.into_iter().for_each(|verdict| tally.add(verdict));
        tally
    }

    /// Counts one more.
    pub fn add(&mut self, verdict: &Verdict) {
        *self.verdicts.entry(verdict.kind()).or_default() += 1;
        match verdict {
            Verdict::Skip(reason) => *self.skips.entry(reason.clone()).or_default() += 1,
            Verdict::Inconclusive(reason) if self.inconclusive.is_none() => self.inconclusive = Some(reason.clone()),
            _ => {}
        }
    }

    /// How many are of this kind.
    pub fn count(&self, kind: VerdictKind) -> usize {
        self.verdicts.get(&kind).copied().unwrap_or(0)
    }

    /// How a run of these cases ends.
    pub fn conclusion(&self) -> Conclusion {
        if self.count(VerdictKind::Fail) > 0 {
            Conclusion::Failed
        } else if self.count(VerdictKind::Pass) + self.count(VerdictKind::Suspect) > 0 {
            Conclusion::Passed
        } else {
            Conclusion::NothingTested(self.why_nothing())
        }
    }

    fn why_nothing(&self) -> String {
        let most = self.skips.iter().max_by_key(|(_, count)| **count).map(|(reason, _)| reason);
        let part = |kind, which: &str, reason: Option<&String>| {
            let reason = reason.filter(|_| self.count(kind) > 0)?;
            Some(format!("{} {which}: {reason}", self.count(kind)))
        };
        let parts = [
            part(VerdictKind::Skip, "skipped, most of them for this reason", most),
            part(VerdictKind::Inconclusive, "inconclusive, the first", self.inconclusive.as_ref()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let why = if parts.is_empty() { "no case was run".to_owned() } else { parts.join("; ") };
        format!("nothing was tested: {why}")
    }
}

/// Which fields of a candidate's answers are judged: those that it declares that it computes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fields {
    /// Those that it computes.
    pub judged: Vec<Field>,
    /// The others: nothing is known of them.
    pub not_judged: Vec<Field>,
}

impl Fields {
    /// The fields of `candidate`.
    pub fn of(candidate: &dyn Candidate) -> Self {
        let declaration = Declaration::typical(candidate);
        let (judged, not_judged) = Field::ALL.into_iter().partition(|field| declaration.computes(*field));
        Fields { judged, not_judged }
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |fields: &[Field]| match fields {
            [] => "nothing".to_owned(),
            _ => fields.iter().map(|field| field.name()).collect::<Vec<_>>().join(", "),
        };
        write!(f, "judged: {}; not judged: {}", names(&self.judged), names(&self.not_judged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::verdict::{Class, Failure};

    #[test]
    fn what_skips_or_decides_nothing_is_no_success() {
        let skip = || Verdict::Skip("no f16".to_owned());
        let unsure = || Verdict::Inconclusive("no device".to_owned());
        let fail = || Verdict::Fail(Failure::new(Class::Crash, None, "crashed".to_owned()));
        let ends = |verdicts: &[Verdict]| Tally::of(verdicts).conclusion();
        assert_eq!(ends(&[skip(), Verdict::Pass, unsure()]), Conclusion::Passed);
        assert_eq!(ends(&[Verdict::Suspect(String::new())]), Conclusion::Passed);
        assert_eq!(ends(&[skip(), fail(), Verdict::Pass]), Conclusion::Failed);
        let nothing = |verdicts: &[Verdict]| match ends(verdicts) {
            Conclusion::NothingTested(why) => why,
            other => panic!("{verdicts:?}: {other:?}"),
        };
        assert_eq!(nothing(&[]), "nothing was tested: no case was run");
        let why = nothing(&[skip(), unsure(), skip()]);
        assert!(why.contains("2 skipped") && why.contains("no f16"), "{why}");
        assert!(why.contains("1 inconclusive") && why.contains("no device"), "{why}");
    }
}
