//! Two documents of one kind as one: the parts of a campaign that ran on several machines, or one after the other.

use std::fmt::Display;

/// Documents that tell of parts of the same work.
///
/// `merge` is associative, and which of two parts comes first makes no difference: parts can be merged in any order as they come
/// in, and give what one run over all of them would have given.
pub trait Merge: Sized {
    /// Both as one.
    ///
    /// # Errors
    /// They do not belong together: they tell of different candidates, or of the same cases twice.
    fn merge(self, other: Self) -> Result<Self, Apart>;
}

/// Why two documents are not parts of the same work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Apart {
    /// They tell of different things.
    #[error("{what} differs: {one} in one document, {other} in the other")]
    Differs {
        /// What differs.
        what: &'static str,
        /// What it is in the one.
        one: String,
        /// What it is in the other.
        other: String,
    },
    /// Both tell of the same part of the work.
    #[error("both documents hold the {what} {name}")]
    Twice {
        /// What both hold.
        what: &'static str,
        /// Its name.
        name: String,
    },
}

impl Apart {
    /// `what` is `one` here and `other` there.
    pub fn new(what: &'static str, one: impl Display, other: impl Display) -> Self {
        Apart::Differs { what, one: one.to_string(), other: other.to_string() }
    }

    /// Both hold the `what` called `name`.
    pub fn twice(what: &'static str, name: impl Display) -> Self {
        Apart::Twice { what, name: name.to_string() }
    }

    /// Nothing where both have the same.
    ///
    /// # Errors
    /// They do not.
    pub fn unless_same<T: PartialEq + Display>(what: &'static str, one: &T, other: &T) -> Result<(), Self> {
        if one == other { Ok(()) } else { Err(Apart::new(what, one, other)) }
    }
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
