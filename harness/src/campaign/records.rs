//! What a GPU answered, kept so that a machine without one can judge it again: docs/reproducing.md.
//!
//! A record is one file of JSON and one of tensors for each rung and element. It goes stale with the kernels: every case
//! names the hash of the flattened sources and flags that answered it.

use std::collections::BTreeMap;
use std::path::Path;

use nsa_corpus::{
    Dtype, Entry, Error, Field, Inputs, Outputs, Shape, Sizes, TensorFile, TensorFileBuilder, digest, entries, foreign,
    read_bytes, read_text, version, write_atomically,
};
use nsa_gpu::{Rung, Variant};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::calibrate::{Measured, PRODUCTS, Sum};
use crate::candidate::cuda;
use crate::judge::verdict::VerdictKind;
use crate::judge::{judge_declared, verdict};
use crate::report::Report;
use crate::version_1;

/// Cases with at most this many output elements keep their outputs.
const RAW_ELEMENTS: usize = 6000;
/// The key of the seal: the digest of all else, and of the tensors.
const SEAL: &str = "sha256";
/// The longest text of a record that is read.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// The longest file of a record's tensors that is read.
const TENSORS_BYTES_MAX: u64 = 256 << 20;

/// The answers of one rung in one element.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The version that its file is written in ([`nsa_corpus::version`]).
    pub format: u32,
    /// The rung of every pass.
    pub rung: Rung,
    /// The format of the inputs.
    pub dtype: Dtype,
    /// Device, driver, compiler.
    pub device: Value,
    /// How its dot products round.
    pub calibration: Vec<Measured>,
    /// By entry.
    pub cases: BTreeMap<String, RecordedCase>,
}

/// One case's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedCase {
    /// The case's id: another one is another case.
    pub id: String,
    /// Hash of the kernels' flattened sources and flags.
    pub kernels: String,
    /// What it came to.
    pub verdict: VerdictKind,
    /// For each field: the first 16 digits of the SHA-256 of its bits, and the largest error / budget rounded up to a power
    /// of two (its exponent; `null` where every element is exact).
    pub fields: BTreeMap<Field, (String, Option<i32>)>,
    /// Whether the outputs themselves are kept.
    pub raw: bool,
}

/// The hash of the kernels that compute `inputs` on `rung`.
pub fn kernels(rung: Rung, inputs: &Inputs) -> String {
    nsa_gpu::compile::source::hash(&Variant::uniform(rung).programs(inputs.shape(), inputs.dtype()), None)
}

/// A record under way.
pub struct Recorder {
    record: Record,
    raw: TensorFileBuilder,
}

impl Recorder {
    /// An empty record.
    pub fn new(rung: Rung, dtype: Dtype, device: Value, calibration: Vec<Measured>) -> Self {
        let (format, cases) = (version::FORMAT, BTreeMap::new());
        let record = Record { format, rung, dtype, device, calibration, cases };
        Recorder { record, raw: TensorFileBuilder::new() }
    }

    /// Adds what `report` says of `entry`.
    pub fn add(&mut self, entry: &Entry, inputs: &Inputs, report: &Report) {
        let Some(outputs) = &report.outputs else { return };
        let raw = report.elements() <= RAW_ELEMENTS;
        let mut fields = BTreeMap::new();
        for comparison in &report.comparisons {
            let Some(tensor) = outputs.get(comparison.field) else { continue };
            let ratio = comparison.worst.as_ref().map(|worst| worst.ratio.log2().ceil() as i32);
            fields.insert(comparison.field, (short_digest(tensor), ratio));
            if raw {
                let stored = stored(self.record.dtype, comparison.field);
                self.raw.float(&format!("{}|{}", entry.name, comparison.field), stored, tensor);
            }
        }
        let case = RecordedCase {
            id: report.id.clone(),
            kernels: kernels(self.record.rung, inputs),
            verdict: report.verdict.kind(),
            fields,
            raw,
        };
        self.record.cases.insert(entry.name.clone(), case);
    }

    /// Writes `RUNG-DTYPE.json` and `RUNG-DTYPE.safetensors` into `folder`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let unwritable = |error: std::io::Error| Error::invalid(format!("cannot be written: {error}")).in_file(folder);
        std::fs::create_dir_all(folder).map_err(unwritable)?;
        let name = format!("{}-{}", self.record.rung, self.record.dtype);
        let tensors = self.raw.to_bytes();
        let document = serde_json::to_value(&self.record).expect("plain data");
        write_atomically(folder.join(format!("{name}.json")), sealed(document, &tensors).as_bytes())?;
        write_atomically(folder.join(format!("{name}.safetensors")), &tensors)
    }
}

/// The format that the kernels store `field` in.
fn stored(dtype: Dtype, field: Field) -> Dtype {
    match field {
        Field::Lse | Field::SlidingLse | Field::DselScale => Dtype::F32,
        _ => dtype,
    }
}

fn short_digest(tensor: &ndarray::ArrayD<f64>) -> String {
    digest::tensor(tensor)[..16].to_owned()
}

/// The text of a document beside these tensors: the only one that is not a broken seal.
fn sealed(mut document: Value, tensors: &[u8]) -> String {
    let unsealed = serde_json::to_string_pretty(&document).expect("plain data");
    document[SEAL] = digest::bytes(&[unsealed.as_bytes(), tensors].concat()).into();
    serde_json::to_string_pretty(&document).expect("plain data") + "\n"
}

/// The record of two files, if neither was changed since it was written.
///
/// # Errors
/// The text is no record, or not the one that was written beside these tensors: a byte of either was changed.
pub fn open(written: &str, tensors: &[u8]) -> Result<Record, String> {
    let document = unsealed(written)?;
    if sealed(document.clone(), tensors) != written {
        return Err("the seal does not fit: a byte was changed".to_owned());
    }
    parse(document)
}

/// The document of a text, whatever its seal.
fn unsealed(written: &str) -> Result<Value, String> {
    let mut document: Value = serde_json::from_str(written).map_err(unreadable)?;
    document.as_object_mut().and_then(|object| object.remove(SEAL));
    Ok(document)
}

/// The record of a document of any version.
fn parse(mut document: Value) -> Result<Record, String> {
    let format = version_1::take_version(&mut document)?;
    if format == 1 {
        version_1::record(&mut document);
    }
    if let Some(keys) = document.as_object_mut() {
        keys.insert(version_1::KEY.to_owned(), format.into());
    }
    serde_json::from_value(document).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> String {
    foreign::short(&error.to_string(), 300)
}

/// Judges a stored record again, without a GPU. Returns the number of cases whose outputs were judged, and everything that
/// is wrong: a broken seal, stale kernels or cases, a digest or a verdict that does not follow from the outputs.
///
/// # Errors
/// A file of the record cannot be read.
pub fn check(path: &Path) -> Result<(usize, Vec<String>), Error> {
    let text = read_text(path, TEXT_BYTES_MAX)?;
    let tensors = path.with_extension("safetensors");
    let bytes = read_bytes(&tensors, TENSORS_BYTES_MAX)?;
    let named = |message: String| format!("{}: {message}", path.display());
    let record = match open(&text, &bytes) {
        Ok(record) => record,
        Err(message) => return Ok((0, vec![named(message)])),
    };
    let file = TensorFile::parse(bytes).map_err(|error| error.in_file(&tensors))?;
    let (judged, wrong) = check_record(&record, &file);
    Ok((judged, wrong.into_iter().map(named).collect()))
}

/// Judges the cases of a record whose tensors are `file`.
fn check_record(record: &Record, file: &TensorFile) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    if let Err(message) = check_calibration(record) {
        wrong.push(format!("calibration: {message}"));
    }
    let mut judged = 0;
    for (name, case) in &record.cases {
        match check_case(record, name, case, file) {
            Ok(again) => judged += usize::from(again),
            Err(message) => wrong.push(format!("{}: {message}", foreign::short(name, 80))),
        }
    }
    (judged, wrong)
}

/// Reads and judges the bytes of a record, whatever its seal, beside a file without tensors. See [`crate::readers`].
pub(crate) fn read(written: &str) -> Result<(), String> {
    let record = parse(unsealed(written)?)?;
    let empty = TensorFile::parse(TensorFileBuilder::new().to_bytes()).map_err(|error| error.to_string())?;
    let (_, wrong) = check_record(&record, &empty);
    wrong.into_iter().next().map_or(Ok(()), Err)
}

/// What is declared of the dot products today must be what they were measured under, and cover what was found.
fn check_calibration(record: &Record) -> Result<(), String> {
    let sizes = Sizes {
        batch: 1,
        q_heads: 1,
        kv_heads: 1,
        sel_heads: 1,
        num_sel: 1,
        seq_len: PRODUCTS,
        dim: PRODUCTS,
        value_dim: PRODUCTS,
        block_size: PRODUCTS,
    };
    let shape = Shape::new(sizes).map_err(|error| error.to_string())?;
    let arithmetic = Variant::uniform(record.rung).arithmetic(&shape, record.dtype, arch(record)?);
    for sum in Sum::ALL {
        let measured = record.calibration.iter().find(|measured| measured.sum == sum);
        let measured = measured.ok_or_else(|| format!("{} were not measured", sum.name()))?;
        let declared = sum.declared(&arithmetic);
        if measured.declared != declared {
            return Err(format!("{} are declared as {declared:?}, were as {:?}", sum.name(), measured.declared));
        }
        if measured.refuted() {
            let (found, allowed) = (measured.attained_units, measured.declared_units);
            return Err(format!("{}: an error of {found} u is above the {allowed} u declared", sum.name()));
        }
        if let Some(bits) = measured.looser() {
            return Err(format!("{}: sums keep 2^{bits} times more than is declared", sum.name()));
        }
    }
    Ok(())
}

fn arch(record: &Record) -> Result<&str, String> {
    record.device["arch"].as_str().ok_or_else(|| "the device has no architecture".to_owned())
}

fn check_case(record: &Record, name: &str, case: &RecordedCase, file: &TensorFile) -> Result<bool, String> {
    let entry = entries().iter().find(|entry| entry.name == name).ok_or("no such entry any more: record again")?;
    if entry.case.id() != case.id {
        return Err("the entry has changed since: record again on a GPU".to_owned());
    }
    let inputs = entry.case.materialize(record.dtype).map_err(|error| error.to_string())?;
    let supported = Variant::uniform(record.rung).supports(inputs.shape(), record.dtype, arch(record)?);
    supported.map_err(|reason| format!("no kernel answers this: {reason}"))?;
    if kernels(record.rung, &inputs) != case.kernels {
        return Err("stale evidence: the kernels have changed since; run `nsa-diff record` on a GPU".to_owned());
    }
    if !case.raw {
        return Ok(false);
    }
    let stored = if record.format == 1 { version::entry_name_in_version_1(name) } else { name };
    let mut outputs = Outputs::new();
    for (field, (digest, _)) in &case.fields {
        let tensor = file.get_f64(&format!("{stored}|{field}")).map_err(|error| error.to_string())?;
        if short_digest(&tensor) != *digest {
            return Err(format!("{field} is not what was recorded"));
        }
        outputs.set(*field, tensor);
    }
    let declaration = cuda::declaration(Variant::uniform(record.rung), &inputs, arch(record)?);
    let again = verdict(&judge_declared(&inputs, &declaration, &outputs));
    if again.kind() != case.verdict {
        return Err(format!("recorded as {}, judged again: {again}", case.verdict));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_declaration_than_the_measured_one_is_wrong_and_so_is_a_refuted_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/records");
        let read = |ending| std::fs::read(folder.join(format!("tensor-bf16.{ending}"))).unwrap();
        let record = || open(std::str::from_utf8(&read("json")).unwrap(), &read("safetensors")).unwrap();
        assert_eq!(check_calibration(&record()), Ok(()));
        let refused = |change: fn(&mut Record)| {
            let mut changed = record();
            change(&mut changed);
            check_calibration(&changed).unwrap_err()
        };
        assert!(refused(|record| record.device["arch"] = "sm_80".into()).contains("extra_bits: 0"));
        assert!(refused(|record| record.device = Value::Null).contains("no architecture"));
        assert!(refused(|record| record.calibration[0].attained_units = 59.0).contains("an error of 59 u"));
        assert!(refused(|record| record.calibration.truncate(1)).contains("products were not measured"));
    }
}
