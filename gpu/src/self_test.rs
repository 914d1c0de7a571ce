//! What only a GPU can show of this crate itself: that its checks see what they are there to see.

use crate::checks::POISON;
use crate::device::Device;
use crate::error::Error;

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
    Ok(checks)
}

/// Words of shared memory that do not hold `expected`, once it was filled with `pattern`.
fn filled(device: &Device, pattern: u32, expected: u32) -> Result<(u32, String), Error> {
    device.poison_shared(pattern)?;
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
