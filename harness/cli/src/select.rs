//! Which entries, dtypes and candidate a command line names.

use std::convert::Infallible;

use globset::{GlobBuilder, GlobMatcher};
use nsa_corpus::{Dtype, Entry, entries};

use super::Refusal;
use nsa_harness::candidate::Candidate;
use nsa_harness::registry::by_name;
use nsa_harness::version_1;

/// The longest pattern; no name of an entry is longer.
const PATTERN_BYTES_MAX: usize = 240;

/// The implementation under test.
#[derive(clap::Args)]
pub(super) struct CandidateArg {
    /// The implementation under test (see `nsa-diff candidates`)
    #[arg(long, value_name = "NAME", default_value = "tiled", value_parser = candidate_name)]
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

/// A candidate's name as it is today; the names of version 1 are taken too.
pub(super) fn candidate_name(name: &str) -> Result<String, Infallible> {
    Ok(version_1::candidate(name.trim()).into_owned())
}

/// The formats to run in.
#[derive(clap::Args)]
pub(super) struct Dtypes {
    /// Format of the inputs; may be given several times [default: f32, f16 and bf16, where the case allows]
    #[arg(long = "dtype", alias = "element", value_name = "f32|f16|bf16|f64")]
    dtypes: Vec<Dtype>,
}

impl Dtypes {
    /// The formats that were asked for, each once; none: all.
    pub(super) fn given(&self) -> Vec<Dtype> {
        let mut given = self.dtypes.clone();
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
        if self.dtypes.is_empty() { these.to_vec() } else { self.given() }
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
        let mut matches = matching(pattern, names)?;
        if !matches.contains(&true)
            && let Some(rest) = pattern.strip_prefix("seed/")
        {
            // What version 1 called the group.
            matches = matching(&format!("upstream/{rest}"), names)?;
        }
        if !matches.contains(&true) {
            return Err(Refusal::new(format!("no entry matches `{pattern}`; near it: {}", nearest(pattern, names))));
        }
        chosen.iter_mut().zip(matches).for_each(|(chosen, matches)| *chosen |= matches);
    }
    Ok((0..names.len()).filter(|index| chosen[*index]).collect())
}

/// Of each of `names`, whether it matches `pattern`.
fn matching(pattern: &str, names: &[&str]) -> Result<Vec<bool>, Refusal> {
    let matcher = matcher(pattern)?;
    Ok(names.iter().map(|name| matcher.matches(name)).collect())
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
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        candidate: CandidateArg,
        #[command(flatten)]
        dtypes: Dtypes,
    }

    #[test]
    fn candidates_and_dtypes_are_taken_as_version_1_spelt_them() {
        let line = |words: &[&str]| Line::try_parse_from([&["nsa-diff"], words].concat()).map_err(|e| e.to_string());
        for (old, new) in [
            ("plain", "rowwise"),
            ("plain+dk_zeros", "rowwise+dk_zeros"),
            ("cuda:apart", "cuda:far-strides"),
            ("cuda:tensor:apart", "cuda:tensor:far-strides"),
            ("cuda:plain", "cuda:plain"),
        ] {
            assert_eq!(line(&["--candidate", old]).unwrap().candidate.name(), new);
            assert_eq!(line(&["--candidate", new]).unwrap().candidate.name(), new);
        }
        let both = line(&["--element", "f16", "--dtype", "f32"]).unwrap();
        assert_eq!(both.dtypes.given(), [Dtype::F16, Dtype::F32]);
        assert!(!Line::command().render_long_help().to_string().contains("element"), "the old spelling is shown");
    }

    #[test]
    fn a_group_is_found_under_its_name_of_version_1_unless_a_name_of_today_matches() {
        let chosen = |pattern: &str, names: &[&str]| chosen(&[pattern.to_owned()], names).map_err(|e| e.to_string());
        let names = ["edges/seq_1", "upstream/small", "upstream/mock_inputs"];
        assert_eq!(chosen("seed/*", &names), Ok(vec![1, 2]));
        assert_eq!(chosen("seed/small", &names), Ok(vec![1]));
        assert_eq!(chosen("seed/small", &["seed/small", "upstream/small"]), Ok(vec![0]));
        assert!(chosen("seed/none", &names).unwrap_err().contains("no entry matches `seed/none`"));
    }

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
