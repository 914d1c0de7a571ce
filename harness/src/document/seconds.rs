//! A time in a document: a number of seconds, which adds without rounding.

use std::ops::AddAssign;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A time, in whole nanoseconds: sums are the same in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(into = "f64", try_from = "f64")]
pub struct Seconds(Duration);

impl Seconds {
    /// The number of seconds.
    pub fn number(self) -> f64 {
        self.0.as_secs_f64()
    }
}

impl From<Duration> for Seconds {
    fn from(time: Duration) -> Self {
        Seconds(time)
    }
}

impl From<Seconds> for f64 {
    fn from(seconds: Seconds) -> Self {
        seconds.number()
    }
}

impl TryFrom<f64> for Seconds {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, String> {
        Duration::try_from_secs_f64(seconds).map(Seconds).map_err(|error| format!("{seconds} seconds: {error}"))
    }
}

impl AddAssign for Seconds {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}
