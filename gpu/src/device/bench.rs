//! Timings with CUDA events: warm-up, a flushed second-level cache before each call, median and minimum.

use nsa_corpus::{Inputs, Outputs};
use serde::{Deserialize, Serialize};

use super::memory::{Buffer, Safety};
use super::open::Device;
use super::run::Options;
use crate::driver::{Event, Stream};
use crate::error::Error;
use crate::plan::Extent;

/// How long one pass took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Of all repetitions.
    pub median: f32,
    /// The fastest.
    pub min: f32,
    /// Repetitions after the warm-up.
    pub repetitions: usize,
}

impl Timing {
    fn of(mut times: Vec<f32>) -> Self {
        times.sort_by(f32::total_cmp);
        let middle = times.len() / 2;
        let median = if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 };
        Timing { median, min: times[0], repetitions: times.len() }
    }
}

/// What [`bench()`] measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// One forward.
    pub forward: Timing,
    /// One forward and one backward after it; where `inputs` give a cotangent.
    pub forward_and_backward: Option<Timing>,
    /// What the last timed call computed.
    pub outputs: Outputs,
}

/// Times problems like `inputs`. Buffers are allocated and kernels compiled once; guard zones and poison are off.
///
/// # Errors
/// As [`crate::run()`].
///
/// # Panics
/// With `repetitions` 0.
pub fn bench(device: &Device, inputs: &Inputs, options: &Options, repetitions: usize) -> Result<Measured, Error> {
    assert!(repetitions > 0, "no repetition, no median");
    let (attend, buffers) = Options { safety: Safety::NONE, ..*options }.prepare(device, inputs)?;
    let flush = Buffer::new(device, "flush", Extent::flat(2 * device.info().cache_bytes as usize), Safety::NONE)?;
    let forward = attend.bind_forward(&buffers)?;
    let measured_forward = time(device, &flush, repetitions, || forward.launch())?;
    let mut forward_and_backward = None;
    if inputs.cotangents().any() {
        let backward = attend.bind_backward(&buffers)?;
        let both = || forward.launch().and_then(|()| backward.launch());
        forward_and_backward = Some(time(device, &flush, repetitions, both)?);
    }
    let outputs = attend.download_all(&buffers)?;
    Ok(Measured { forward: measured_forward, forward_and_backward, outputs })
}

fn time(
    device: &Device,
    flush: &Buffer,
    repetitions: usize,
    call: impl Fn() -> Result<(), Error>,
) -> Result<Timing, Error> {
    const WARM_UP: usize = 3;
    let mut times = Vec::with_capacity(repetitions);
    for repetition in 0..WARM_UP + repetitions {
        flush.fill(repetition as u8)?;
        let (start, end) = (Event::new(device.context())?, Event::new(device.context())?);
        start.record(Stream::DEFAULT)?;
        call()?;
        end.record(Stream::DEFAULT)?;
        let milliseconds = end.milliseconds_since(&start)?;
        if repetition >= WARM_UP {
            times.push(milliseconds);
        }
    }
    device.synchronize()?;
    Ok(Timing::of(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        let timing = Timing::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((timing.median, timing.min, timing.repetitions), (2.5, 1.0, 4));
        assert_eq!(Timing::of(vec![5.0, 1.0, 9.0]).median, 5.0);
    }
}
