//! What only a GPU can show of this crate itself: that its checks see what they are there to see.

use nsa_corpus::{Case, Dtype, Inputs, Outputs, Sizes, Values};

use super::checks::POISON;
use super::memory::{Buffer, Safety};
use super::open::Device;
use super::run::{Options, run};
use crate::driver::{Foreign, OwnStream, Stream};
use crate::error::{Error, Kind};
use crate::plan::Extent;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What must be so.
    pub claim: &'static str,
    /// What was found.
    pub found: String,
    /// Whether it is so.
    pub passed: bool,
}

/// Tries everything on `device`.
///
/// # Errors
/// Something could not be tried at all: the driver's error, or the compiler's.
pub fn self_test(device: &Device) -> Result<Vec<Check>, Error> {
    let mut checks = shared_memory(device)?;
    checks.extend(clusters(device)?);
    checks.extend(foreign(device)?);
    Ok(checks)
}

/// Words of shared memory that do not hold `expected`, once it was filled with `pattern`.
fn filled(device: &Device, pattern: u32, expected: u32) -> Result<(u32, String), Error> {
    let (poison, extent) = device.poison_call(pattern)?;
    poison.launch(&extent, Stream::DEFAULT)?;
    let probed = device.probe_shared(expected, 1)?;
    let (all, shared) = (device.info().multiprocessors, device.info().shared_bytes / 4);
    let found = format!(
        "{} of {} words differ, on {} of {all} SMs",
        probed.different,
        u64::from(all) * u64::from(shared),
        probed.multiprocessors
    );
    // Where not every SM was looked at, nothing is known.
    let unseen = u32::from(probed.multiprocessors != all as usize);
    Ok((probed.different + unseen, found))
}

fn shared_memory(device: &Device) -> Result<Vec<Check>, Error> {
    let (different, found) = filled(device, POISON, POISON)?;
    let poisoned = Check { claim: "poison fills the shared memory of every SM", found, passed: different == 0 };
    // Filled with zeros, no word may pass for poison: the probe really looks.
    let (different, found) = filled(device, 0, POISON)?;
    let all = device.info().multiprocessors * (device.info().shared_bytes / 4);
    let seen = Check { claim: "shared memory that holds zeros is seen to", found, passed: different == all };
    Ok(vec![poisoned, seen])
}

/// A launch in clusters is one: where the architecture has them.
fn clusters(device: &Device) -> Result<Option<Check>, Error> {
    if device.info().capability.0 < 9 {
        return Ok(None);
    }
    let probed = device.probe_shared(POISON, 2)?;
    let found = format!("{} CTAs in a cluster", probed.cluster);
    Ok(Some(Check { claim: "a launch in clusters of 2 has clusters of 2", found, passed: probed.cluster == 2 }))
}

/// Tensors and workspaces given as bare addresses, with a stream of their own, which is held while the launches are put on it.
fn foreign(device: &Device) -> Result<Vec<Check>, Error> {
    let inputs = small().map_err(|error| Kind::Invalid(error.to_string()))?;
    let expected = run(device, &inputs, &Options::default())?;
    let (attend, buffers) = Options::default().prepare(device, &inputs)?;
    let addresses: Vec<_> = buffers.iter().map(|(tensor, buffer)| (tensor, buffer.address())).collect();
    let stream = OwnStream::new(device.context())?;
    let foreign = Foreign::lent(stream.handle(), &addresses);
    let (forward, backward) = (attend.bind_forward(&foreign)?, attend.bind_backward(&foreign)?);
    let open = Buffer::new(device, "open", Extent::flat(4), Safety::NONE)?;
    open.fill(0)?;
    let (gate, extent) = device.gate_call(&open)?;
    // The stream does not wait for the default one, on which memory was filled.
    device.synchronize()?;
    gate.launch(&extent, stream.handle())?;
    forward.launch()?;
    backward.launch()?;
    let held = !stream.is_done()?;
    open.fill(1)?;
    stream.synchronize()?;
    buffers.check()?;
    let found = if held { "they returned while the stream was held" } else { "the stream was done when they returned" };
    let waits =
        Check { claim: "launches over foreign tensors wait for nothing", found: found.to_owned(), passed: held };
    let differing = differing(&expected, &attend.download_all(&buffers)?);
    let found = format!("{differing} elements differ from those of tensors of our own");
    let same = Check { claim: "foreign tensors give the same bits", found, passed: differing == 0 };
    Ok(vec![waits, same])
}

/// A small problem with every tensor there is.
fn small() -> Result<Inputs, nsa_corpus::Error> {
    let (q_heads, kv_heads, seq_len, dim, block_size, num_sel) = (8, 2, 43, 16, 8, 3);
    let sizes =
        Sizes { batch: 2, q_heads, kv_heads, seq_len, dim, value_dim: 24, block_size, num_sel, sel_heads: kv_heads };
    let normal = || Some(Values::normal());
    let case = Case {
        sliding_window: Some(5),
        sel_scale: normal(),
        d_lse: normal(),
        d_sliding: normal(),
        ..Case::ordinary(sizes, 1)
    };
    case.materialize(Dtype::Bf16)
}

/// Elements whose bits are not the same; all of a field that one of them lacks.
fn differing(expected: &Outputs, found: &Outputs) -> usize {
    let fields = expected.iter().map(|(field, expected)| match found.get(field) {
        Some(found) => expected.iter().zip(found).filter(|(a, b)| a.to_bits() != b.to_bits()).count(),
        None => expected.len(),
    });
    fields.sum()
}

#[cfg(test)]
mod tests {
    use nsa_corpus::Field;

    use super::*;
    use crate::plan::{Plan, Problem, Tensor};

    #[test]
    fn the_small_problem_has_every_tensor_and_every_output() {
        let inputs = small().unwrap();
        let plan = Plan::new(&Problem::of(&inputs), "sm_90a").unwrap();
        assert_eq!(plan.buffers().len(), Tensor::ALL.len());
        assert!(Field::ALL.into_iter().all(|field| field.asked_by(&inputs)));
    }

    #[test]
    fn a_changed_bit_and_a_missing_field_differ() {
        let ones = Outputs::filled(&small().unwrap(), 1.0);
        assert_eq!(differing(&ones, &ones), 0);
        let mut changed = ones.clone();
        changed.get_mut(Field::Dk).unwrap()[[0, 0, 0, 0]] = 1.0f64.next_up();
        assert_eq!(differing(&ones, &changed), 1);
        let missing = changed.take(Field::Dk).unwrap().len();
        assert_eq!(differing(&ones, &changed), missing);
    }
}
