//! The document of `detect`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, Merge, Unmergeable};
use crate::detect::{Rejections, Row, Rule};

/// Which mutants are noticed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Detect {
    /// In what they are planted.
    pub candidate: String,
    /// Who judges.
    pub rules: Vec<Rule>,
    /// Cases that each mutant is tried on.
    pub cases: usize,
    /// Mutants that were not planted after an interruption.
    pub left_out: usize,
    /// Every mutant that was planted, and its fates.
    pub mutants: Vec<Row>,
    /// Where rules reject the candidate without any mutant.
    pub rejects_without_any: Rejections,
}

impl Detect {
    /// Whether a mutant's fate by our own rule is not the expected one. A rule of others that misses something is a result; our own
    /// is to miss nothing.
    pub fn fails(&self) -> bool {
        self.mutants.iter().any(Row::is_unexpected)
    }
}

impl Document for Detect {
    const KIND: &'static str = "detect";
}

impl Merge for Detect {
    /// Parts plant different mutants on the same cases. Mutants stand in the order of their names.
    fn merge(self, other: Self) -> Result<Self, Unmergeable> {
        let names = |rules: &[Rule]| rules.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(", ");
        Unmergeable::unless_same("the candidate", &self.candidate, &other.candidate)?;
        Unmergeable::unless_same("the list of rules", &names(&self.rules), &names(&other.rules))?;
        Unmergeable::unless_same("the number of cases", &self.cases, &other.cases)?;
        if self.rejects_without_any != other.rejects_without_any {
            let [one, other] = [&self, &other].map(|part| counts(&part.rejects_without_any));
            return Err(Unmergeable::Differs { what: "what is rejected without any mutant", one, other });
        }
        let mut mutants = [self.mutants, other.mutants].concat();
        mutants.sort_by(|left, right| (&left.name, &left.carrier).cmp(&(&right.name, &right.carrier)));
        if let Some(two) = mutants.windows(2).find(|two| two[0].name == two[1].name && two[0].carrier == two[1].carrier)
        {
            return Err(Unmergeable::twice(format!("the mutant {}", two[0].name)));
        }
        Ok(Detect { left_out: self.left_out + other.left_out, mutants, ..self })
    }
}

/// How many cases each rule rejects, in words.
fn counts(rejections: &Rejections) -> String {
    let counts = Rule::ALL.map(|rule| format!("{} {}", rule.name(), rejections.count(rule)));
    counts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::CandidateName;
    use crate::detect::{Means, Phases, all_entries, jobs, plants};
    use crate::document::merge::laws;
    use crate::mutants::mutants;
    use crate::registry::by_name;
    use crate::watch::Watch;
    use nsa_corpus::Dtype;

    /// One mutant in the tiled candidate, on one case.
    fn part(name: &str) -> Detect {
        let inner = by_name("tiled").unwrap();
        let chosen: Vec<_> = all_entries().into_iter().filter(|entry| entry.name == "edges/seq_1").collect();
        let mutant = mutants().iter().find(|mutant| mutant.name == name).unwrap();
        let plants = plants(&CandidateName::Tiled, inner.as_ref(), std::slice::from_ref(mutant));
        let (jobs, rules) = (jobs(&chosen, &[Dtype::F32]), [Rule::Ours, Rule::Upstream]);
        let phases = Phases {
            candidate: Some(inner.as_ref()),
            plants: &plants,
            jobs: &jobs,
            mock: &[],
            rules: &rules,
            means: Means { sanitizer: None },
            explain: false,
        };
        let rejects_without_any = phases.without_any(Watch::nobody()).unwrap();
        let mutants = phases.plant(&rejects_without_any, Watch::nobody()).unwrap();
        let (candidate, rules) = ("tiled".to_owned(), rules.to_vec());
        Detect { candidate, rules, cases: jobs.len(), left_out: 0, mutants, rejects_without_any }
    }

    #[test]
    fn parts_merge_in_any_order_into_what_one_campaign_gives() {
        let parts = ["dk_zeros", "dv_gain_of_1_percent", "dq_negated"].map(part);
        let whole = laws(parts.clone());
        let names: Vec<&str> = whole.mutants.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["dk_zeros", "dq_negated", "dv_gain_of_1_percent"]);
        let again = parts[2].clone().merge(whole).unwrap_err().to_string();
        assert!(again.contains("dq_negated"), "{again}");
        let other = Detect { cases: 2, ..parts[1].clone() };
        assert!(parts[0].clone().merge(other).unwrap_err().to_string().contains("the number of cases"));
    }
}
