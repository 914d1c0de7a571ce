//! Which entries, elements and backend a command line names.

use globset::GlobBuilder;
use nsa_corpus::{Element, Entry, entries};

use super::Refusal;
use crate::backend::{Backend, by_name};

/// The implementation under test.
#[derive(clap::Args)]
pub(super) struct Candidate {
    /// The implementation under test (see `nsa-diff backends`)
    #[arg(long, value_name = "NAME", default_value = "tiled")]
    candidate: String,
}

impl Candidate {
    pub(super) fn make(&self) -> Result<Box<dyn Backend>, Refusal> {
        Ok(by_name(&self.candidate)?)
    }

    pub(super) fn name(&self) -> &str {
        &self.candidate
    }
}

/// The formats to run in.
#[derive(clap::Args)]
pub(super) struct Elements {
    /// Format of the inputs; may be given several times [default: f32, f16 and bf16, where the case allows]
    #[arg(long = "element", value_name = "f32|f16|bf16|f64")]
    elements: Vec<Element>,
}

impl Elements {
    /// The formats that were asked for; none: all.
    pub(super) fn given(&self) -> &[Element] {
        &self.elements
    }

    /// The formats that were asked for, or those of `entry`.
    pub(super) fn of(&self, entry: &Entry) -> Vec<Element> {
        if self.elements.is_empty() { entry.elements.clone() } else { self.elements.clone() }
    }

    /// The formats that were asked for, or the usual three.
    pub(super) fn or_usual(&self) -> Vec<Element> {
        if self.elements.is_empty() { Entry::ELEMENTS.to_vec() } else { self.elements.clone() }
    }
}

/// The entries whose names match any of `patterns`, all of them for none.
///
/// A pattern is a glob over the whole name, in which `*` crosses `/`; a plain name matches itself.
pub(super) fn select(patterns: &[String]) -> Result<Vec<&'static Entry>, Refusal> {
    let mut chosen = vec![patterns.is_empty(); entries().len()];
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(false).build();
        let matcher =
            glob.map_err(|error| Refusal::new(format!("pattern `{pattern}`: {}", error.kind())))?.compile_matcher();
        let mut any = false;
        for (chosen, entry) in chosen.iter_mut().zip(entries()) {
            let matches = matcher.is_match(&entry.name);
            *chosen |= matches;
            any |= matches;
        }
        if !any {
            return Err(Refusal::new(format!("no entry matches `{pattern}`; near it: {}", nearest(pattern))));
        }
    }
    Ok(entries().iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(entry, _)| entry).collect())
}

/// The three names that share most with `pattern`.
fn nearest(pattern: &str) -> String {
    let pairs = |text: &str| text.as_bytes().windows(2).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let wanted = pairs(pattern);
    let mut names: Vec<(usize, &str)> = entries()
        .iter()
        .map(|entry| (pairs(&entry.name).iter().filter(|pair| wanted.contains(pair)).count(), entry.name.as_str()))
        .collect();
    names.sort_by_key(|(shared, name)| (std::cmp::Reverse(*shared), *name));
    names.iter().take(3).map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}
