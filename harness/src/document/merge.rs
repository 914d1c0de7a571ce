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
#[error("{what} differs: {one} in one document, {other} in the other")]
pub struct Apart {
    what: &'static str,
    one: String,
    other: String,
}

impl Apart {
    /// `what` is `one` here and `other` there.
    pub fn new(what: &'static str, one: impl Display, other: impl Display) -> Self {
        Apart { what, one: one.to_string(), other: other.to_string() }
    }

    /// Nothing where both have the same.
    ///
    /// # Errors
    /// They do not.
    pub fn unless_same<T: PartialEq + Display>(what: &'static str, one: &T, other: &T) -> Result<(), Self> {
        if one == other { Ok(()) } else { Err(Apart::new(what, one, other)) }
    }
}
