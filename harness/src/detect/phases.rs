//! The phases of a campaign of mutants: first the candidate alone, which must pass, then each mutant.

use nsa_gpu::Rung;
use rayon::prelude::*;

use super::{Failed, Job, Means, Plant, Rejections, Row, Rule, baseline, explain, fates};
use crate::candidate::Candidate;
use crate::candidate::cuda::Cuda;
use crate::tally::{Conclusion, Tally};
use crate::watch::Watch;

/// Processes for each GPU while the kernels are run without a mutant.
const WORKERS: usize = 8;

/// What is planted, on what it is tried, and who judges.
pub struct Phases<'a> {
    /// The candidate that mutants are planted in; `None`: every rung of the CUDA kernels.
    pub candidate: Option<&'a dyn Candidate>,
    /// The mutants.
    pub plants: &'a [Plant<'a>],
    /// The cases, the cheapest first.
    pub jobs: &'a [Job],
    /// The mock inputs of the upstream script, on which every mutant is tried alone too; none: it is not asked for.
    pub mock: &'a [Job],
    /// Who judges.
    pub rules: &'a [Rule],
    /// Looks for mutants of kernels beyond what cases show.
    pub means: Means<'a>,
    /// Whether each mutant is placed, named and minimised.
    pub explain: bool,
}

impl Phases<'_> {
    /// The first phase: every case without any mutant. Returns where rules of others reject the candidate all the same.
    ///
    /// # Errors
    /// The candidate fails by our own rule, or cannot be had; no case says anything of it.
    pub fn without_any(&self, watch: Watch<'_>) -> Result<Rejections, Failed> {
        let (mut tally, mut rejections) = (Tally::default(), Rejections::default());
        match self.candidate {
            Some(candidate) => self.reject(candidate, watch, &mut tally, &mut rejections)?,
            None => {
                for rung in Rung::ALL {
                    self.reject(&Cuda::new(Some(rung), None, WORKERS)?, watch, &mut tally, &mut rejections)?;
                }
            }
        }
        if let (Conclusion::NothingTested(why), false) = (tally.conclusion(), watch.stopped()) {
            return Err(Failed::NothingTested(why));
        }
        let kernels: Vec<_> = self.plants.iter().filter_map(Plant::kernel).collect();
        if !kernels.is_empty() && !watch.stopped() {
            self.means.baseline(&kernels)?;
        }
        Ok(rejections)
    }

    fn reject(
        &self,
        candidate: &dyn Candidate,
        watch: Watch<'_>,
        tally: &mut Tally,
        rejections: &mut Rejections,
    ) -> Result<(), Failed> {
        let begun = self.jobs.par_iter().filter(|_| !watch.stopped());
        let all = begun.map(|job| {
            let baseline = baseline(job, self.rules, candidate);
            watch.done();
            baseline
        });
        for (verdict, one) in all.collect::<Result<Vec<_>, _>>()? {
            tally.add(&verdict);
            rejections.extend(one);
        }
        Ok(())
    }

    /// The second phase: every mutant, until `watch` says stop. A case that counts among `rejections` shows nothing by that rule.
    ///
    /// # Errors
    /// A candidate cannot be made, or a case is broken.
    pub fn plant(&self, rejections: &Rejections, watch: Watch<'_>) -> Result<Vec<Row>, Failed> {
        let begun = self.plants.par_iter().filter(|_| !watch.stopped());
        let rows = begun.map(|plant| {
            let row = self.row(plant, rejections);
            watch.done();
            row
        });
        rows.collect()
    }

    fn row(&self, plant: &Plant<'_>, rejections: &Rejections) -> Result<Row, Failed> {
        let mut row = match plant.kernel() {
            Some(mutant) => self.means.fates(plant, mutant, self.jobs, self.rules, rejections)?,
            None => fates(plant, self.jobs, self.rules, rejections)?,
        };
        if !self.mock.is_empty() {
            row.on_mock_inputs = fates(plant, self.mock, self.rules, rejections)?.fates;
        }
        if self.explain {
            explain(plant, self.jobs, &mut row)?;
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use crate::candidate::CandidateName;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::detect::{all_entries, jobs, plants};
    use crate::mutants::mutants;
    use crate::registry::by_name;
    use nsa_corpus::Dtype;

    fn small() -> Vec<Job> {
        let chosen: Vec<_> = all_entries().into_iter().filter(|entry| entry.name == "edges/seq_1").collect();
        jobs(&chosen, &[Dtype::F32])
    }

    #[test]
    fn the_candidate_comes_first_and_then_each_mutant_once() {
        let inner = by_name("tiled").unwrap();
        let wanted = ["dk_zeros", "dq_negated"];
        let plants: Vec<Plant<'_>> = plants(&CandidateName::Tiled, inner.as_ref(), mutants())
            .into_iter()
            .filter(|plant| wanted.contains(&plant.name()))
            .collect();
        let (jobs, mock) = (small(), small());
        let phases = Phases {
            candidate: Some(inner.as_ref()),
            plants: &plants,
            jobs: &jobs,
            mock: &mock,
            rules: &[Rule::Ours],
            means: Means { sanitizer: None },
            explain: false,
        };
        let steps = AtomicUsize::new(0);
        let count = || {
            steps.fetch_add(1, Ordering::Relaxed);
        };
        let watch = Watch::new(&|| false, &count);
        let rejections = phases.without_any(watch).unwrap();
        assert_eq!((rejections.count(Rule::Ours), steps.load(Ordering::Relaxed)), (0, 1));
        let rows = phases.plant(&rejections, watch).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!((names, steps.load(Ordering::Relaxed)), (wanted.to_vec(), 3));
        assert!(rows.iter().all(|row| row.fates == row.on_mock_inputs), "{rows:?}");
        let none = phases.plant(&rejections, Watch::new(&|| true, &|| ())).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn a_candidate_that_fails_without_any_mutant_ends_the_campaign() {
        let broken = by_name("rowwise+dv_gain_of_1_percent").unwrap();
        let jobs = small();
        let phases = Phases {
            candidate: Some(broken.as_ref()),
            plants: &[],
            jobs: &jobs,
            mock: &[],
            rules: &[Rule::Ours],
            means: Means { sanitizer: None },
            explain: false,
        };
        let failed = phases.without_any(Watch::nobody()).unwrap_err().to_string();
        assert!(failed.contains("fails edges/seq_1 f32 without any mistake planted"), "{failed}");
    }
}
