//! Two documents of one kind as one: the parts of a campaign that ran on several machines, or one after the other.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::AddAssign;

/// Documents that tell of parts of the same work.
///
/// `merge` is associative, and which of two parts comes first makes no difference: parts can be merged in any order as they come
/// in, and give what one run over all of them would have given.
pub trait Merge: Sized {
    /// Both as one.
    ///
    /// # Errors
    /// They do not belong together: they tell of different candidates, or of the same cases twice.
    fn merge(self, other: Self) -> Result<Self, Unmergeable>;
}

/// Why two documents are not parts of the same work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmergeable {
    /// They tell of different things.
    #[error("{what} differs: {one} in one document, {other} in the other")]
    Differs {
        /// What differs.
        what: &'static str,
        /// What one says of it.
        one: String,
        /// What the other says of it.
        other: String,
    },
    /// They tell of the same thing, which would be counted twice.
    #[error("{0} is in both documents")]
    Twice(String),
}

impl Unmergeable {
    /// Nothing where both have the same.
    ///
    /// # Errors
    /// They do not.
    pub fn unless_same<T: PartialEq + Display>(what: &'static str, one: &T, other: &T) -> Result<(), Self> {
        if one == other {
            return Ok(());
        }
        Err(Unmergeable::Differs { what, one: one.to_string(), other: other.to_string() })
    }

    /// Both tell of `what`.
    pub fn twice(what: impl Display) -> Self {
        Unmergeable::Twice(what.to_string())
    }
}

/// Adds `more` to `counts`.
pub(super) fn add_counts<K: Ord, N: AddAssign + Default>(counts: &mut BTreeMap<K, N>, more: BTreeMap<K, N>) {
    more.into_iter().for_each(|(key, count)| *counts.entry(key).or_default() += count);
}

/// Three parts merged in every order and grouping, which must all give the same.
#[cfg(test)]
pub(super) fn laws<D: Merge + Clone + serde::Serialize>(parts: [D; 3]) -> D {
    let [a, b, c] = parts;
    let merged = |one: &D, other: &D| one.clone().merge(other.clone()).unwrap();
    let whole = merged(&merged(&a, &b), &c);
    let text = |document: &D| serde_json::to_string_pretty(document).unwrap();
    assert_eq!(text(&merged(&a, &merged(&b, &c))), text(&whole), "grouping makes a difference");
    for [one, two, three] in [[&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]] {
        assert_eq!(text(&merged(&merged(one, two), three)), text(&whole), "order makes a difference");
    }
    whole
}
