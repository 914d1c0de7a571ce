//! Running the corpus on one rung of the kernels, and writing down what it answered: the making of a [`super::records::Record`].

use std::path::Path;

use nsa_corpus::{Dtype, Entry, Error, Inputs, entries};
use nsa_gpu::{DeviceInfo, Rung};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::records::Recorder;
use crate::calibrate::{Measured, Sum, Unmeasured, measure};
use crate::candidate::Candidate;
use crate::judge::verdict::Verdict;
use crate::report::Report;
use crate::run::run_entry;
use crate::watch::Watch;

/// The device, its driver and the compiler: what a record says of where its answers are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// The device's name.
    pub name: String,
    /// The architecture that kernels are compiled for.
    pub arch: String,
    /// Version of CUDA that the driver supports, major and minor.
    pub driver: (u32, u32),
    /// Version of NVRTC, major and minor.
    pub nvrtc: (u32, u32),
}

impl From<&DeviceInfo> for Machine {
    fn from(info: &DeviceInfo) -> Self {
        Machine { name: info.name.clone(), arch: info.arch(), driver: info.driver, nvrtc: info.compiler }
    }
}

/// What recording one rung in one dtype came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// The rung of every pass.
    #[schemars(with = "String")]
    pub rung: Rung,
    /// The dtype of the inputs.
    pub dtype: Dtype,
    /// Cases recorded.
    pub cases: usize,
    /// Those of them that fail.
    pub failed: usize,
    /// Cases that the rung does not do.
    pub skipped: usize,
}

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum Unrecorded {
    /// A case is broken, or a file cannot be written.
    #[error("{0}")]
    Case(#[from] Error),
    /// How its dot products round could not be measured.
    #[error("{rung} {dtype}: {reason}")]
    Calibration {
        /// The rung.
        rung: Rung,
        /// The dtype.
        dtype: Dtype,
        /// Why.
        reason: Unmeasured,
    },
}

/// The entries that exist in `dtype`: what a record of it holds.
pub fn chosen(dtype: Dtype) -> Vec<&'static Entry> {
    entries().iter().filter(|entry| entry.dtypes.contains(&dtype)).collect()
}

/// Runs `chosen` on `candidate`, which is `rung` of the kernels on `machine`, and writes the record into `folder` unless every case
/// is skipped. Returns the counts and a line for each case that fails.
///
/// # Errors
/// See [`Unrecorded`].
pub fn record(
    folder: &Path,
    machine: &Machine,
    (rung, dtype): (Rung, Dtype),
    candidate: &dyn Candidate,
    chosen: &[&Entry],
    watch: Watch<'_>,
) -> Result<(Counts, Vec<String>), Unrecorded> {
    let answered = answers(chosen, dtype, candidate, watch)?;
    let calibration =
        calibration(candidate, dtype).map_err(|reason| Unrecorded::Calibration { rung, dtype, reason })?;
    let device = serde_json::to_value(machine).expect("plain data");
    let mut recorder = Recorder::new(rung, dtype, device, calibration);
    let mut counts = Counts { rung, dtype, cases: 0, failed: 0, skipped: 0 };
    let mut failures = Vec::new();
    for (entry, (inputs, report)) in chosen.iter().zip(&answered) {
        match &report.verdict {
            Verdict::Skip(_) => counts.skipped += 1,
            verdict => {
                counts.cases += 1;
                if verdict.failure().is_some() {
                    counts.failed += 1;
                    failures.push(format!("{} {dtype} {rung}: {verdict}", entry.name));
                }
                recorder.add(entry, inputs, report);
            }
        }
    }
    if counts.cases > 0 {
        recorder.write(folder)?;
    }
    Ok((counts, failures))
}

fn answers(
    chosen: &[&Entry],
    dtype: Dtype,
    candidate: &dyn Candidate,
    watch: Watch<'_>,
) -> Result<Vec<(Inputs, Report)>, Error> {
    let answered = chosen.par_iter().map(|entry| {
        let report = run_entry(entry, dtype, candidate)?;
        watch.done();
        Ok((entry.case.materialize(dtype)?, report))
    });
    answered.collect()
}

fn calibration(candidate: &dyn Candidate, dtype: Dtype) -> Result<Vec<Measured>, Unmeasured> {
    match Sum::ALL.map(|sum| measure(candidate, sum, dtype, 1)).into_iter().collect() {
        Err(Unmeasured::Unsupported(_)) => Ok(Vec::new()),
        measured => measured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::records::{check, open};
    use crate::registry::by_name;

    /// A record of `candidate` on two entries, written to a folder.
    fn recorded(candidate: &str) -> (tempfile::TempDir, Counts, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine { name: "none".to_owned(), arch: "sm_90a".to_owned(), driver: (13, 0), nvrtc: (13, 0) };
        let chosen: Vec<&Entry> = chosen(Dtype::F32)
            .into_iter()
            .filter(|entry| ["edges/seq_1", "edges/seq_1_selects_itself"].contains(&entry.name.as_str()))
            .collect();
        assert_eq!(chosen.len(), 2);
        let candidate = by_name(candidate).unwrap();
        let of = (Rung::Plain, Dtype::F32);
        let (counts, failures) =
            record(folder.path(), &machine, of, candidate.as_ref(), &chosen, Watch::nobody()).unwrap();
        (folder, counts, failures)
    }

    #[test]
    fn what_was_recorded_opens_and_is_judged_again() {
        let (folder, counts, failures) = recorded("tiled");
        assert_eq!((counts.cases, counts.failed, counts.skipped, failures.len()), (2, 0, 0, 0));
        let file = folder.path().join("plain-f32.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let record = open(&text, &std::fs::read(file.with_extension("safetensors")).unwrap()).unwrap();
        assert_eq!(record.cases.keys().collect::<Vec<_>>(), ["edges/seq_1", "edges/seq_1_selects_itself"]);
        assert_eq!(record.device["arch"], "sm_90a");
        let (judged, _) = check(&file).unwrap();
        assert_eq!(judged, 2, "both are small: their answers are kept");
    }

    #[test]
    fn a_failure_is_recorded_counted_and_told() {
        let (_folder, counts, failures) = recorded("rowwise+dv_gain_of_1_percent");
        assert_eq!((counts.cases, counts.failed), (2, 2));
        assert!(failures[0].starts_with("edges/seq_1 f32 plain: fail: over budget: dv"), "{failures:?}");
    }
}
