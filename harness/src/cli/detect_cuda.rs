//! What becomes of the faults planted in the CUDA kernels, one after another: which case of the corpus notices each.

use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nsa_corpus::{Element, Entry, entries};
use nsa_gpu::{Expect, Genre, Mutant, Rung};
use rayon::prelude::*;

use super::Refusal;
use super::output::{interrupted, progress};
use crate::backend::Backend;
use crate::backend::cuda::Cuda;
use crate::run::run_entry;
use crate::verdict::{Class, Verdict};

/// The entry on which tensors are set apart, and races are looked for: small, with every kind of tensor, two batch entries,
/// and several heads.
const SMALL: &str = "edges/seq_ragged";

/// What a sanitizer is told to end with once it found something.
const HAZARDS: i32 = 86;

/// What became of a fault.
pub(super) struct Fate {
    pub(super) mutant: Mutant,
    /// `killed`, `survived`, `timeout`, `unviable` or `equivalent`.
    pub(super) fate: &'static str,
    /// The case and field that killed it, or why it could not be tried.
    pub(super) by: String,
    pub(super) seconds: f64,
}

impl Fate {
    /// Whether it is what the mutant's file expects.
    pub(super) fn expected(&self) -> bool {
        match self.mutant.expect {
            Expect::Killed => matches!(self.fate, "killed" | "timeout"),
            Expect::Equivalent => self.fate == "equivalent",
            Expect::Unviable => self.fate == "unviable",
        }
    }
}

/// How faults are looked for beyond running the corpus.
pub(super) struct Means<'a> {
    /// The program `compute-sanitizer`, for races that did not happen.
    pub(super) sanitizer: Option<&'a str>,
}

/// The fates of `mutants`, fewer of them after Ctrl-C.
pub(super) fn fates(mutants: Vec<Mutant>, means: &Means<'_>) -> Result<Vec<Fate>, Refusal> {
    let cases = cheapest_first();
    baselines(&mutants, &cases, means)?;
    let bar = progress(Some(mutants.len() as u64));
    let fates = mutants
        .into_par_iter()
        .filter(|_| !interrupted())
        .map(|mutant| {
            let fate = fate(mutant, &cases, means);
            bar.inc(1);
            fate
        })
        .collect();
    bar.finish_and_clear();
    fates
}

/// Without any fault everything by which `mutants` will be judged must pass.
fn baselines(mutants: &[Mutant], cases: &Cases, means: &Means<'_>) -> Result<(), Refusal> {
    let any = |genre| mutants.iter().any(|mutant| mutant.genre == genre);
    for rung in Rung::ALL {
        baseline(&Cuda::new(Some(rung), None, 8)?, cases)?;
        if any(Genre::Offsets) {
            baseline(&Cuda::apart(Some(rung), None)?, &apart_cases(rung))?;
        }
        if let Some(sanitizer) = means.sanitizer.filter(|_| any(Genre::Race))
            && let Some(found) = racecheck(sanitizer, rung, None)?
        {
            return Err(Refusal::new(format!("without any fault: {found}")));
        }
    }
    Ok(())
}

type Cases = [(&'static Entry, Element)];

/// Every entry and element, those with the fewest score terms first.
fn cheapest_first() -> Vec<(&'static Entry, Element)> {
    let cost = |entry: &Entry| {
        let sizes = &entry.case.sizes;
        sizes.batch
            * sizes.q_heads
            * sizes.seq_len
            * (sizes.num_sel + 1)
            * sizes.block_size
            * sizes.dim.max(sizes.value_dim)
    };
    let mut cases: Vec<_> =
        entries().iter().flat_map(|entry| entry.elements.iter().map(move |element| (entry, *element))).collect();
    cases.sort_by_key(|(entry, _)| cost(entry));
    cases
}

fn small() -> &'static Entry {
    entries().iter().find(|entry| entry.name == SMALL).expect("the corpus holds it")
}

/// The element in which a rung is tried on [`SMALL`].
fn element_of(rung: Rung) -> Element {
    match rung {
        Rung::Plain => Element::F32,
        Rung::Tensor => Element::Bf16,
    }
}

fn apart_cases(rung: Rung) -> [(&'static Entry, Element); 1] {
    [(small(), element_of(rung))]
}

/// The rung on which a mutant's file is compiled.
fn rung_of(mutant: &Mutant) -> Rung {
    let tensor = mutant.file.contains("tensor") || mutant.file.contains("mma");
    if tensor { Rung::Tensor } else { Rung::Plain }
}

fn baseline(backend: &dyn Backend, cases: &Cases) -> Result<(), Refusal> {
    let failed = cases.par_iter().find_map_any(|(entry, element)| {
        let report = run_entry(entry, *element, backend).ok()?;
        let failure = report.verdict.failure()?;
        Some(format!("{} fails {} {element} without any fault: {}", backend.name(), entry.name, failure.message))
    });
    failed.map_or(Ok(()), |message| Err(Refusal::new(message)))
}

fn fate(mutant: Mutant, cases: &Cases, means: &Means<'_>) -> Result<Fate, Refusal> {
    let start = Instant::now();
    let (rung, name) = (rung_of(&mutant), mutant.name.as_str());
    let mut found = first_failure(&Cuda::new(Some(rung), Some(name), 1)?, cases)?;
    if found.is_none() && mutant.genre == Genre::Offsets {
        // One at a time: tensors set apart fill the device.
        static DEVICE: Mutex<()> = Mutex::new(());
        let _device = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
        found = first_failure(&Cuda::apart(Some(rung), Some(name))?, &apart_cases(rung))?;
    }
    if let (None, Genre::Race, Some(sanitizer)) = (&found, mutant.genre, means.sanitizer) {
        found = racecheck(sanitizer, rung, Some(name))?.map(|by| ("killed", by));
    }
    let (mut fate, by) = found.unwrap_or(("survived", String::new()));
    if fate == "survived" && mutant.expect == Expect::Equivalent {
        fate = "equivalent";
    }
    Ok(Fate { mutant, fate, by, seconds: start.elapsed().as_secs_f64() })
}

/// The fate that the first case which notices something decides, with that case. A case that could not be run, such as
/// tensors set apart on a device that is too small for them, leaves a survivor with the reason.
fn first_failure(backend: &Cuda, cases: &Cases) -> Result<Option<(&'static str, String)>, Refusal> {
    let mut untried = None;
    for (entry, element) in cases {
        let report = run_entry(entry, *element, backend as &dyn Backend)?;
        match &report.verdict {
            Verdict::Fail(failure) => {
                let fate = match failure.class {
                    Class::Compile => "unviable",
                    Class::Timeout => "timeout",
                    _ => "killed",
                };
                let what = failure.field.map_or_else(|| failure.message.clone(), |field| field.to_string());
                return Ok(Some((fate, format!("{} {element}: {what} ({})", entry.name, failure.class))));
            }
            Verdict::Inconclusive(reason) if report.outputs.is_none() => {
                untried = Some(("survived", format!("{} {element} could not be run: {reason}", entry.name)));
            }
            _ => {}
        }
    }
    Ok(untried)
}

/// What racecheck says of the shared memory of a rung's kernels, if anything.
fn racecheck(sanitizer: &str, rung: Rung, mutant: Option<&str>) -> Result<Option<String>, Refusal> {
    let program = std::env::current_exe().map_err(|error| Refusal::new(error.to_string()))?;
    let mut command = Command::new(sanitizer);
    command.args(["--tool", "racecheck", "--error-exitcode", &HAZARDS.to_string()]).arg(program);
    command.args(["compute", SMALL, "--rung", rung.name(), "--element", &element_of(rung).to_string()]);
    mutant.into_iter().for_each(|name| _ = command.args(["--mutant", name]));
    let output = command.output().map_err(|error| Refusal::new(format!("{sanitizer}: {error}")))?;
    match output.status.code() {
        Some(0) => Ok(None),
        Some(HAZARDS) => Ok(Some(format!("{SMALL} under racecheck: a hazard in shared memory"))),
        _ => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            let last: Vec<&str> = text.lines().rev().take(3).collect();
            Err(Refusal::new(format!("{sanitizer}: {}: {}", output.status, last.join(" | "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use nsa_corpus::Field;
    use nsa_gpu::{Axis, Operand};

    use super::*;

    #[test]
    fn the_small_entry_holds_every_tensor_and_every_axis() {
        for rung in Rung::ALL {
            let inputs = small().case.materialize(element_of(rung)).unwrap();
            assert!(Field::ALL.into_iter().all(|field| field.asked_by(&inputs)));
            nsa_gpu::Variant::uniform(rung).supports(inputs.shape(), inputs.element()).unwrap();
            for (operand, axis) in Operand::ALL.into_iter().flat_map(|operand| Axis::ALL.map(|axis| (operand, axis))) {
                assert!(operand.count(axis, inputs.shape()) > 1, "{operand:?} {axis:?}");
            }
        }
    }

    #[test]
    fn every_case_is_tried_once_cheapest_first() {
        let cases = cheapest_first();
        assert_eq!(cases.len(), entries().iter().map(|entry| entry.elements.len()).sum::<usize>());
        assert!(cases[0].0.case.sizes.seq_len < cases[cases.len() - 1].0.case.sizes.seq_len);
    }
}
