//! Waivers: stored failures that are no failure of a run, each with a reason and with how wrong it may be.
//!
//! A waiver that matched by name alone would hide every other bug of the same field: one for a `dk` that is 2 % too large would
//! excuse a `dk` of another sign. So it matches the signature, everything that the stored minimal case needs, and the extent of
//! the wrong answer: which fields are wrong, and how large their errors are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use nsa_corpus::{Bundle, Case, Error, Field, Outputs, foreign, read_text};
use serde::{Deserialize, Serialize};

use crate::candidate::Candidate;
use crate::judge::intervals;
use crate::report::Report;

/// The file of a folder of stored failures that says which of them are waived.
const WAIVERS: &str = "waivers.toml";
const WAIVERS_BYTES_MAX: u64 = 1 << 20;
/// The note of a stored failure that holds the extents seen when it was found.
pub(crate) const NOTE: &str = "extent";

/// How wrong an answer is, field by field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Extent {
    /// Fields with numbers outside their budgets. For each, the least and the greatest size: the largest error of an answer over
    /// the largest magnitude that the oracle expects in that field, or the error itself where it expects zeros only.
    pub errors: BTreeMap<Field, [f64; 2]>,
    /// Fields with NaN or an infinity in the place of a number, or the reverse.
    pub non_finite: BTreeSet<Field>,
    /// Fields that are missing or have another shape.
    pub shape: BTreeSet<Field>,
}

/// What `waivers.toml` says of one stored failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiver {
    /// Why it is no failure.
    pub reason: String,
    /// How wrong an answer may be to be excused; empty for a failure without an answer, such as a crash.
    pub extent: Extent,
}

impl Extent {
    /// The extent of `found`, of whose wrong fields `ends` hold the least and the greatest values ([`intervals`]).
    fn of(found: &Outputs, ends: &[Outputs; 2]) -> Self {
        let mut extent = Extent::default();
        for (field, lowest) in ends[0].iter() {
            let (Some(found), Some(highest)) = (found.get(field), ends[1].get(field)) else {
                extent.shape.insert(field);
                continue;
            };
            if found.shape() != lowest.shape() || found.shape() != highest.shape() {
                extent.shape.insert(field);
                continue;
            }
            let (size, non_finite) = measure(found, lowest, highest);
            extent.errors.extend(size.map(|size| (field, [size, size])));
            extent.non_finite.extend(non_finite.then_some(field));
        }
        extent
    }

    /// The extent of a failing answer of `candidate` to `case`; empty where there was no answer.
    ///
    /// # Errors
    /// The case has no inputs.
    pub fn of_report(case: &Case, report: &Report, candidate: &dyn Candidate) -> Result<Self, Error> {
        let Some(outputs) = &report.outputs else { return Ok(Extent::default()) };
        let failed = report.comparisons.iter().filter(|comparison| comparison.failure.is_some());
        let failed: Vec<Field> = failed.map(|comparison| comparison.field).collect();
        let inputs = case.materialize(report.dtype)?;
        Ok(Extent::of(outputs, &intervals(&inputs, &candidate.declaration(&inputs).arithmetic, outputs, &failed)))
    }

    /// What a waiver of this stored failure should allow: the extents seen when it was found, half as small to twice as large.
    pub fn of_bundle(bundle: &Bundle) -> Self {
        let own = bundle.outputs.as_ref().map(|outputs| Extent::of(outputs, &bundle.intervals)).unwrap_or_default();
        let noted = bundle.notes.get(NOTE).and_then(|note| serde_json::from_str::<Extent>(note).ok());
        let mut extent = own.with(&noted.filter(|noted| noted.check().is_ok()).unwrap_or_default());
        extent.errors.values_mut().for_each(|[least, greatest]| (*least, *greatest) = (*least / 2.0, *greatest * 2.0));
        extent
    }

    /// Both together.
    #[must_use]
    pub fn with(mut self, other: &Extent) -> Self {
        for (field, [least, greatest]) in &other.errors {
            let own = self.errors.entry(*field).or_insert([*least, *greatest]);
            *own = [own[0].min(*least), own[1].max(*greatest)];
        }
        self.non_finite.extend(&other.non_finite);
        self.shape.extend(&other.shape);
        self
    }

    /// Whether an answer as wrong as `seen` is within this extent.
    ///
    /// # Errors
    /// The first field that is not, with both values.
    pub fn allows(&self, seen: &Extent) -> Result<(), String> {
        for (field, [least, greatest]) in &seen.errors {
            let Some([from, to]) = self.errors.get(field) else {
                return Err(format!("{field} is wrong, which is not waived"));
            };
            if !(from <= least && greatest <= to) {
                return Err(format!(
                    "{field} errs by {greatest:.3e} of its largest magnitude, waived are {from:e} to {to:e}"
                ));
            }
        }
        if let Some(field) = seen.non_finite.difference(&self.non_finite).next() {
            return Err(format!("{field} is not finite, which is not waived"));
        }
        match seen.shape.difference(&self.shape).next() {
            Some(field) => Err(format!("{field} is missing or of another shape, which is not waived")),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), String> {
        for (field, [from, to]) in &self.errors {
            if !(*from >= 0.0 && from <= to && to.is_finite()) {
                return Err(format!("`errors` of {field} are {from} to {to}: no interval of finite sizes"));
            }
        }
        Ok(())
    }

    /// Its lines in `waivers.toml`.
    pub fn to_toml(&self) -> String {
        let names =
            |fields: &BTreeSet<Field>| fields.iter().map(|field| format!("\"{field}\"")).collect::<Vec<_>>().join(", ");
        let errors: Vec<String> =
            self.errors.iter().map(|(field, [from, to])| format!("{field} = [{from:.2e}, {to:.2e}]")).collect();
        let mut lines = vec![format!("errors = {{ {} }}", errors.join(", "))];
        for (key, fields) in [("non_finite", &self.non_finite), ("shape", &self.shape)] {
            lines.extend((!fields.is_empty()).then(|| format!("{key} = [{}]", names(fields))));
        }
        lines.join("\n")
    }
}

/// The size of the largest finite error, and whether anything is not finite that should be, or the reverse.
fn measure(found: &ArrayD<f64>, lowest: &ArrayD<f64>, highest: &ArrayD<f64>) -> (Option<f64>, bool) {
    let (mut error, mut magnitude, mut non_finite) = (None, 0.0f64, false);
    for ((found, lowest), highest) in found.iter().zip(lowest).zip(highest) {
        let middle = if lowest == highest { *lowest } else { lowest / 2.0 + highest / 2.0 };
        if !middle.is_finite() {
            // Expected was something not finite, or everything was allowed but NaN.
            let anything = *lowest == f64::NEG_INFINITY && *highest == f64::INFINITY;
            non_finite |= if anything { found.is_nan() } else { found.is_finite() };
            continue;
        }
        magnitude = magnitude.max(middle.abs());
        if !found.is_finite() {
            non_finite = true;
        } else if !(lowest <= found && found <= highest) {
            error = Some((found - middle).abs().max(error.unwrap_or(0.0)));
        }
    }
    (error.map(|error| if magnitude > 0.0 { error / magnitude } else { error }), non_finite)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaiverFile {
    #[serde(default)]
    waiver: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    file: String,
    reason: String,
    errors: Option<BTreeMap<Field, [f64; 2]>>,
    #[serde(default)]
    non_finite: BTreeSet<Field>,
    #[serde(default)]
    shape: BTreeSet<Field>,
}

/// What `waivers.toml` of `folder` waives of the stored failures `bundles`, by file name.
///
/// # Errors
/// It waives a file that is not there, twice, without a reason, or without saying how wrong its answer may be; it does not cover
/// what that file itself holds.
pub(crate) fn read(folder: &Path, bundles: &[(PathBuf, Bundle)]) -> Result<BTreeMap<PathBuf, Waiver>, Error> {
    let path = folder.join(WAIVERS);
    let invalid = |message: String| Error::invalid(message).in_file(&path);
    if std::fs::symlink_metadata(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(BTreeMap::new());
    }
    let entries = parse(&read_text(&path, WAIVERS_BYTES_MAX)?).map_err(invalid)?;
    let mut waivers = BTreeMap::new();
    for entry in entries {
        let file = folder.join(&entry.file);
        let named = |message: &str| invalid(format!("waives {}{message}", foreign::quoted(&entry.file)));
        let Some((_, bundle)) = bundles.iter().find(|(path, _)| *path == file) else {
            return Err(named(", which the folder does not hold"));
        };
        let waiver = entry.checked(bundle).map_err(|message| named(&message))?;
        if waivers.insert(file, waiver).is_some() {
            return Err(named(" twice"));
        }
    }
    Ok(waivers)
}

/// The waivers that a text holds, by file, before they are held to what their files hold.
fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let file: WaiverFile =
        toml::from_str(text).map_err(|error| nsa_corpus::foreign::line(&one_line(error.to_string())))?;
    Ok(file.waiver)
}

/// Whether `text` can be read as a file of waivers.
///
/// # Errors
/// Bad TOML, an unknown key, something that is no interval.
pub(crate) fn read_alone(text: &str) -> Result<(), String> {
    parse(text)?.iter().try_for_each(|entry| entry.extent().check())
}

impl Entry {
    fn extent(&self) -> Extent {
        Extent {
            errors: self.errors.clone().unwrap_or_default(),
            non_finite: self.non_finite.clone(),
            shape: self.shape.clone(),
        }
    }

    fn checked(&self, bundle: &Bundle) -> Result<Waiver, String> {
        if self.reason.trim().is_empty() {
            return Err(" without a reason".to_owned());
        }
        let silent = self.errors.is_none() && self.non_finite.is_empty() && self.shape.is_empty();
        let extent = self.extent();
        let Some(outputs) = &bundle.outputs else {
            let message = ", which holds no answer (it crashed?): `errors`, `non_finite` and `shape` say nothing of it";
            return if silent { Ok(Waiver { reason: self.reason.clone(), extent }) } else { Err(message.to_owned()) };
        };
        let usual = Extent::of_bundle(bundle).to_toml().replace('\n', " and ");
        if silent {
            return Err(format!(" without `errors`, which say how wrong an answer may be: add {usual}"));
        }
        extent.check().map_err(|message| format!(": {message}"))?;
        let own = extent.allows(&Extent::of(outputs, &bundle.intervals));
        own.map_err(|message| format!(", whose own answer is not covered: {message}; it needs {usual}"))?;
        Ok(Waiver { reason: self.reason.clone(), extent })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr1;

    use super::*;

    fn outputs(values: [f64; 3]) -> Outputs {
        let mut outputs = Outputs::new();
        outputs.set(Field::Dk, arr1(&values));
        outputs
    }

    fn extent(found: [f64; 3], expected: [f64; 3]) -> Extent {
        Extent::of(&outputs(found), &[outputs(expected.map(|e| e - 1e-3)), outputs(expected.map(|e| e + 1e-3))])
    }

    fn size(found: [f64; 3], expected: [f64; 3]) -> f64 {
        extent(found, expected).errors[&Field::Dk][0]
    }

    #[test]
    fn a_size_is_relative_to_the_largest_magnitude_of_its_field() {
        assert!((size([1.02, 2.04, -4.08], [1.0, 2.0, -4.0]) - 0.02).abs() < 1e-12);
        assert!((size([1.0, 2.0, -4.08], [1.0, 2.0, -4.0]) - 0.02).abs() < 1e-12);
        assert!((size([0.0, 0.5, 0.0], [0.0; 3]) - 0.5).abs() < 1e-12, "of zeros the error itself");
        assert_eq!(extent([1.0, 2.0, -4.0005], [1.0, 2.0, -4.0]), Extent::default(), "within its budget");
        let expected = [1.0, f64::NAN, f64::INFINITY];
        assert_eq!(extent([1.0, f64::INFINITY, f64::NAN], expected), Extent::default());
        assert!(extent([1.0, 2.0, f64::NAN], expected).non_finite.contains(&Field::Dk));
        let mixed = extent([f64::NAN, 2.2, -4.0], [1.0, 2.0, -4.0]);
        assert!(mixed.non_finite.contains(&Field::Dk) && (mixed.errors[&Field::Dk][0] - 0.05).abs() < 1e-12);
    }

    #[test]
    fn another_size_another_field_or_another_kind_of_wrong_is_not_covered() {
        let waived = Extent { errors: BTreeMap::from([(Field::Dk, [0.01, 0.04])]), ..Extent::default() };
        let seen = |found| extent(found, [1.0, 2.0, -4.0]);
        assert_eq!(waived.allows(&seen([1.02, 2.04, -4.08])), Ok(()));
        let worse = waived.allows(&seen([-4.0, -11.0, 31.0])).unwrap_err();
        assert!(worse.contains("dk errs by 8.750e0") && worse.contains("1e-2 to 4e-2"), "{worse}");
        assert!(waived.allows(&seen([1.002, 2.0, -4.0])).is_err(), "a smaller error is another one");
        assert!(waived.allows(&seen([1.02, 2.04, f64::NAN])).unwrap_err().contains("not finite"));
        let mut more = seen([1.02, 2.04, -4.08]);
        more.errors.insert(Field::Dv, [0.02, 0.02]);
        assert!(waived.allows(&more).unwrap_err().contains("dv is wrong"));
        more.errors.remove(&Field::Dv);
        more.shape.insert(Field::Out);
        assert!(waived.allows(&more).unwrap_err().contains("out is missing"));
    }
}
