//! Which entries, elements and candidate a command line names.

use globset::{GlobBuilder, GlobMatcher};
use nsa_corpus::{Dtype, Entry, entries};

use super::Refusal;
use nsa_harness::candidate::Candidate;
use nsa_harness::registry::by_name;

/// The longest pattern; no name of an entry is longer.
const PATTERN_BYTES_MAX: usize = 240;

/// The implementation under test.
#[derive(clap::Args)]
pub(super) struct CandidateArg {
    /// The implementation under test (see `nsa-diff candidates`)
    #[arg(long, value_name = "NAME", default_value = "tiled")]
    candidate: String,
}

impl CandidateArg {
    pub(super) fn make(&self) -> Result<Box<dyn Candidate>, Refusal> {
        Ok(by_name(&self.candidate)?)
    }

    pub(super) fn name(&self) -> &str {
        &self.candidate
    }
}

/// The formats to run in.
#[derive(clap::Args)]
pub(super) struct Dtypes {
    /// Format of the inputs; may be given several times [default: f32, f16 and bf16, where the case allows]
    #[arg(long = "element", value_name = "f32|f16|bf16|f64")]
    elements: Vec<Dtype>,
}

impl Dtypes {
    /// The formats that were asked for, each once; none: all.
    pub(super) fn given(&self) -> Vec<Dtype> {
        let mut given = self.elements.clone();
        let mut seen = Vec::new();
        given.retain(|dtype| {
            !seen.contains(dtype) && {
                seen.push(*dtype);
                true
            }
        });
        given
    }

    /// The formats that were asked for, or those of `entry`.
    pub(super) fn of(&self, entry: &Entry) -> Vec<Dtype> {
        self.or(&entry.dtypes)
    }

    /// The formats that were asked for, or the usual three.
    pub(super) fn or_usual(&self) -> Vec<Dtype> {
        self.or(&Entry::DTYPES)
    }

    /// The formats that were asked for, or these.
    pub(super) fn or(&self, these: &[Dtype]) -> Vec<Dtype> {
        if self.elements.is_empty() { these.to_vec() } else { self.given() }
    }
}

/// The entries whose names match any of `patterns`, all of them for none.
pub(super) fn select(patterns: &[String]) -> Result<Vec<&'static Entry>, Refusal> {
    let names: Vec<&str> = entries().iter().map(|entry| entry.name.as_str()).collect();
    Ok(chosen(patterns, &names)?.into_iter().map(|index| &entries()[index]).collect())
}

/// Which of `names` match any of `patterns`, all of them for none.
///
/// A pattern is a glob over the whole name, in which `*` crosses `/`; a plain name matches itself.
pub(super) fn chosen(patterns: &[String], names: &[&str]) -> Result<Vec<usize>, Refusal> {
    let mut chosen = vec![patterns.is_empty(); names.len()];
    for pattern in patterns {
        let matcher = matcher(pattern)?;
        let mut any = false;
        for (chosen, name) in chosen.iter_mut().zip(names) {
            let matches = matcher.matches(name);
            *chosen |= matches;
            any |= matches;
        }
        if !any {
            return Err(Refusal::new(format!("no entry matches `{pattern}`; near it: {}", nearest(pattern, names))));
        }
    }
    Ok((0..names.len()).filter(|index| chosen[*index]).collect())
}

/// What a pattern asks for.
enum Matcher<'a> {
    Name(&'a str),
    Glob(GlobMatcher),
}

/// What tells whether a name matches `pattern`.
fn matcher(pattern: &str) -> Result<Matcher<'_>, Refusal> {
    // The work of compiling a glob grows faster than its length.
    if pattern.len() > PATTERN_BYTES_MAX {
        let start: String = pattern.chars().take(40).collect();
        let length = pattern.len();
        return Err(Refusal::new(format!("pattern `{start}…` has {length} bytes, more than {PATTERN_BYTES_MAX}")));
    }
    if !pattern.contains(['*', '?', '[', '{', '\\']) {
        return Ok(Matcher::Name(pattern));
    }
    let glob = GlobBuilder::new(pattern).literal_separator(false).build();
    let glob = glob.map_err(|error| Refusal::new(format!("pattern `{pattern}`: {}", error.kind())))?;
    Ok(Matcher::Glob(glob.compile_matcher()))
}

impl Matcher<'_> {
    fn matches(&self, name: &str) -> bool {
        match self {
            Matcher::Name(own) => *own == name,
            Matcher::Glob(glob) => glob.is_match(name),
        }
    }
}

/// The three names that are most like `pattern`.
fn nearest(pattern: &str, names: &[&str]) -> String {
    let mut names: Vec<(f64, &str)> = names.iter().map(|name| (strsim::jaro(pattern, name), *name)).collect();
    names.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    names.iter().take(3).map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_gets_the_name_that_was_meant_first() {
        let names: Vec<&str> = entries().iter().map(|entry| entry.name.as_str()).collect();
        let wrongly = |name: &str| {
            let middle = name.len() / 2;
            let (left, right) = name.split_at(middle);
            [
                format!("{left}{}", &right[1..]),
                format!("{left}x{right}"),
                name.replacen('_', "-", 1),
                format!("{name}s"),
            ]
        };
        let (mut tried, mut first) = (0, 0);
        for name in &names {
            for wrong in wrongly(name).iter().filter(|wrong| !names.contains(&wrong.as_str())) {
                let offered = nearest(wrong, &names);
                tried += 1;
                first += usize::from(offered.split(", ").next() == Some(name));
                assert!(offered.split(", ").any(|offered| offered == *name), "{wrong}: {offered}");
            }
        }
        assert!(tried > 500 && first * 20 > tried * 19, "{first} of {tried}");
        assert!(nearest("", &names).split(", ").count() == 3);
    }
}
