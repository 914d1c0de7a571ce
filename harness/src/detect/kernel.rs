//! Faults of the CUDA kernels that no case of the corpus shows by itself: offsets that wrap only where tensors are huge, races that
//! did not happen, and reads beside a buffer that change no result.

use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nsa_corpus::{Category, Dtype, Entry, entries};
use nsa_gpu::{Mutant, Rung};

use super::{Failed, Fate, Job, Kill, Plant, Rejections, Row, Rule, fates};
use crate::candidate::Candidate;
use crate::candidate::CandidateName;
use crate::candidate::cuda::Cuda;
use crate::judge::verdict::Verdict;
use crate::run::run_entry;

/// The entry on which tensors and workspaces are set apart: small, with every kind of tensor, two batch entries and several heads.
const SMALL: &str = "edges/seq_ragged";

/// The entry on which races are looked for: every scan goes round more than once, and every list has several parts.
const FULL: &str = "lists/every_scan_full";

/// What a sanitizer is told to end with once it found something.
const HAZARDS: i32 = 86;

/// The sanitizer's tool that shows what no case does: racecheck a race in shared memory that did not happen, memcheck what is
/// read beside a buffer and not used. Each with the entry that it watches.
const TOOLS: [(Category, &str, &str); 2] = [(Category::Race, "racecheck", FULL), (Category::Memory, "memcheck", SMALL)];

/// Looks for faults beyond what the corpus shows.
pub struct Means<'a> {
    /// The program `compute-sanitizer`; without it what only its tools show is not looked for.
    pub sanitizer: Option<&'a str>,
}

impl Means<'_> {
    /// Without any fault, everything that will be tried on `mutants` must find nothing.
    ///
    /// # Errors
    /// It finds something.
    pub fn baseline(&self, mutants: &[&Mutant]) -> Result<(), Failed> {
        let any = |category| mutants.iter().any(|mutant| mutant.category == category);
        for rung in Rung::ALL {
            let mut found = if any(Category::Memory) { far_strides(rung, None)? } else { None };
            for (category, tool, entry) in TOOLS {
                if found.is_none() && any(category) {
                    found = self.sanitize(tool, entry, rung, None)?;
                }
            }
            if let Some(kill) = found {
                let candidate = CandidateName::Cuda { rung: Some(rung), far: false }.to_string();
                let (entry, dtype, message) = (kill.entry, kill.dtype, kill.detail);
                return Err(Failed::Baseline { candidate, entry, dtype, message });
            }
        }
        Ok(())
    }

    /// As [`fates`], for `plant`, which is `mutant`.
    ///
    /// # Errors
    /// As [`fates`]; the sanitizer does not run.
    pub fn fates(
        &self,
        plant: &Plant<'_>,
        mutant: &Mutant,
        jobs: &[Job],
        rules: &[Rule],
        alarms: &Rejections,
    ) -> Result<Row, Failed> {
        let start = Instant::now();
        let ours = rules.contains(&Rule::Ours);
        // First, because the whole corpus would be run before the next: it compiles each kernel at every size.
        let found = if ours && mutant.category == Category::Memory {
            far_strides(mutant.rung(), Some(&mutant.name))?
        } else {
            None
        };
        let open: Vec<Rule> = rules.iter().copied().filter(|rule| found.is_none() || *rule != Rule::Ours).collect();
        let mut row = fates(plant, jobs, &open, alarms)?;
        row.fates.extend(found.map(|kill| (Rule::Ours, Fate::Killed(kill))));
        let escaped = row.fates.get(&Rule::Ours).is_some_and(|fate| fate.kill().is_none());
        let tool = TOOLS.into_iter().find(|(category, ..)| *category == mutant.category);
        if let (true, Some((_, tool, entry))) = (escaped, tool) {
            let kill = self.sanitize(tool, entry, mutant.rung(), Some(&mutant.name))?;
            row.fates.extend(kill.map(|kill| (Rule::Ours, Fate::Killed(kill))));
        }
        row.seconds = start.elapsed().as_secs_f64();
        Ok(row)
    }

    /// What a sanitizer's tool says of a rung's kernels, if anything. Buffers lie without guard zones, which would belong to the
    /// allocation and hide what is read beside them.
    fn sanitize(&self, tool: &str, entry: &str, rung: Rung, mutant: Option<&str>) -> Result<Option<Kill>, Failed> {
        let Some(sanitizer) = self.sanitizer else { return Ok(None) };
        let failed = |message: String| Failed::Sanitizer { program: sanitizer.to_owned(), message };
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(sanitizer);
        command.args(["--tool", tool, "--error-exitcode", &HAZARDS.to_string()]).arg(program);
        command.args(["compute", entry, "--bare", "--rung", rung.name(), "--dtype", &dtype_of(rung).to_string()]);
        command.args(mutant.into_iter().flat_map(|name| ["--mutant", name]));
        let output = command.output().map_err(|error| failed(error.to_string()))?;
        match output.status.code() {
            Some(0) => Ok(None),
            Some(HAZARDS) => Ok(Some(kill(rung, entry, format!("{tool}: an error")))),
            _ => {
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                let last: Vec<&str> = text.lines().rev().take(3).collect();
                Err(failed(format!("{}: {}", output.status, last.join(" | "))))
            }
        }
    }
}

fn entry(name: &str) -> &'static Entry {
    entries().iter().find(|entry| entry.name == name).expect("the corpus holds it")
}

/// The element in which a rung is tried.
fn dtype_of(rung: Rung) -> Dtype {
    match rung {
        Rung::Plain => Dtype::F32,
        Rung::Tensor => Dtype::Bf16,
    }
}

fn kill(rung: Rung, entry: &str, detail: String) -> Kill {
    Kill { entry: entry.to_owned(), dtype: dtype_of(rung), field: None, detail, cases: 1 }
}

/// What is found once each tensor in turn is set apart, if anything; nothing where the device is too small for that.
fn far_strides(rung: Rung, mutant: Option<&str>) -> Result<Option<Kill>, Failed> {
    // One at a time: tensors set apart fill the device.
    static DEVICE: Mutex<()> = Mutex::new(());
    let _device = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let candidate = Cuda::far(Some(rung), mutant)?;
    let report = run_entry(entry(SMALL), dtype_of(rung), &candidate as &dyn Candidate)?;
    Ok(match &report.verdict {
        Verdict::Fail(failure) => Some(kill(rung, SMALL, format!("far strides: {}", failure.message))),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use nsa_corpus::Field;
    use nsa_gpu::Variant;
    use nsa_gpu::plan::{Axis, Lists, Operand};

    use super::*;

    #[test]
    fn the_small_entry_holds_every_tensor_and_every_axis() {
        for rung in Rung::ALL {
            let inputs = entry(SMALL).case.materialize(dtype_of(rung)).unwrap();
            assert!(Field::ALL.into_iter().all(|field| field.asked_by(&inputs)));
            Variant::uniform(rung).supports(inputs.shape(), inputs.dtype(), "sm_90a").unwrap();
            for (operand, axis) in Operand::ALL.into_iter().flat_map(|operand| Axis::ALL.map(|axis| (operand, axis))) {
                assert!(operand.count(axis, inputs.shape()) > 1, "{operand:?} {axis:?}");
            }
        }
    }

    #[test]
    fn the_full_entry_fills_every_scan_and_list() {
        for rung in Rung::ALL {
            let inputs = entry(FULL).case.materialize(dtype_of(rung)).unwrap();
            Variant::uniform(rung).supports(inputs.shape(), inputs.dtype(), "sm_90a").unwrap();
            let lists = Lists::of(inputs.shape());
            assert!(inputs.shape().blocks() > lists.scanned_at_once, "{} blocks", inputs.shape().blocks());
            assert!(lists.chunks > 1 && inputs.shape().sel_heads() > 1, "{lists:?}");
            let mut visits = vec![0; inputs.shape().blocks()];
            let first =
                inputs.indices().iter().zip(inputs.mask()).take(inputs.shape().seq_len() * inputs.shape().num_sel());
            first.filter(|(_, live)| **live).for_each(|(block, _)| visits[*block as usize] += 1);
            let most = *visits.iter().max().unwrap();
            assert!(most > lists.segment_visits, "{most} visits, {lists:?}");
        }
    }

    #[test]
    fn a_sanitizer_that_is_none_is_an_error_and_one_that_finds_nothing_is_not() {
        let racecheck = |sanitizer| Means { sanitizer }.sanitize("racecheck", FULL, Rung::Plain, None);
        assert!(racecheck(None).unwrap().is_none());
        assert!(racecheck(Some("true")).unwrap().is_none());
        let failed = racecheck(Some("false")).unwrap_err().to_string();
        assert!(failed.starts_with("false: exit status: 1"), "{failed}");
        assert!(racecheck(Some("no-such-program")).is_err());
    }
}
