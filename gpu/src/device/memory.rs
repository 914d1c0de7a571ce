//! Device memory with a guard zone on both sides, and the tensors that lie in it.
//!
//! A guard zone holds a known pattern; whatever a kernel wrote beyond its buffer shows there. Outputs can be filled with
//! bytes that are NaN in every element type, so that what a kernel did not write shows too.

use super::open::Device;
use crate::driver::{Address, Allocation};
use crate::error::{Error, Kind};
use crate::plan::Extent;

/// All bits set: NaN as f32, f16 and bf16, and an index far out of range as u32.
pub(super) const POISON: u8 = 0xff;
const GUARD: u8 = 0xa5;

/// How buffers are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Safety {
    /// Bytes of guard zone on either side of each buffer, a multiple of 256 (the alignment of what lies between).
    pub guard_bytes: usize,
    /// Fill outputs and workspaces with NaN, and before each launch the shared memory of every SM.
    pub poison: bool,
}

impl Safety {
    /// Bytes that a buffer for `place` takes.
    pub(super) fn bytes(self, extent: &Extent) -> u64 {
        (extent.bytes() + 2 * self.guard_bytes.next_multiple_of(256)) as u64
    }

    /// Guard zones and poison.
    pub const CHECKED: Safety = Safety { guard_bytes: 4096, poison: true };
    /// Neither, for timings.
    pub const NONE: Safety = Safety { guard_bytes: 0, poison: false };
}

/// Bytes on the device with a guard zone on both sides, and in the gaps between its rows where a view has any.
#[derive(Debug)]
pub struct Buffer {
    name: String,
    allocation: Allocation,
    guard_bytes: usize,
    extent: Extent,
    /// Where bytes lie without gaps, first and end of each run, counted from the front guard zone's end.
    runs: Vec<(usize, usize)>,
    // What an input held when it was uploaded, where it is to be checked afterwards.
    uploaded: Option<Vec<u8>>,
}

impl Buffer {
    /// Uninitialised (or poisoned) memory for what lies at `place`.
    pub(super) fn new(device: &Device, name: &str, extent: Extent, safety: Safety) -> Result<Self, Error> {
        let guard_bytes = safety.guard_bytes.next_multiple_of(256);
        let allocation = Allocation::new(device.context(), extent.bytes() + 2 * guard_bytes)?;
        let runs = extent.runs();
        let buffer = Buffer { name: name.to_owned(), allocation, guard_bytes, extent, runs, uploaded: None };
        for zone in guard_zones(&buffer.runs, extent.bytes(), guard_bytes) {
            buffer.allocation.fill(zone.start, zone.end - zone.start, GUARD)?;
        }
        if safety.poison {
            buffer.fill(POISON)?;
        }
        Ok(buffer)
    }

    /// A copy of `source`, rows in the order `b, head, token`, on the device. With guard zones, the source is kept to
    /// compare the buffer with afterwards.
    pub(super) fn upload(
        device: &Device,
        name: &str,
        extent: Extent,
        source: Vec<u8>,
        safety: Safety,
    ) -> Result<Self, Error> {
        assert_eq!(source.len(), extent.filled_bytes(), "{name}");
        let mut buffer = Buffer::new(device, name, extent, Safety { poison: false, ..safety })?;
        if extent.is_in_order() {
            buffer.allocation.copy_in(buffer.guard_bytes, &source)?;
        } else {
            let (mut rows, size) = (extent.rows(), extent.row_bytes());
            for (start, end) in &buffer.runs {
                let mut run = Vec::with_capacity(end - start);
                while run.len() < end - start {
                    let (_, number) = rows.next().expect("runs consist of rows");
                    run.extend_from_slice(&source[number * size..][..size]);
                }
                buffer.allocation.copy_in(buffer.guard_bytes + start, &run)?;
            }
        }
        buffer.uploaded = (safety.guard_bytes > 0).then_some(source);
        Ok(buffer)
    }

    pub(super) fn fill(&self, value: u8) -> Result<(), Error> {
        self.runs.iter().try_for_each(|(start, end)| self.allocation.fill(self.guard_bytes + start, end - start, value))
    }

    /// Where the bytes lie.
    pub(super) fn address(&self) -> Address {
        self.allocation.address(self.guard_bytes)
    }

    /// Bytes between the guard zones, gaps between rows included.
    pub fn bytes(&self) -> usize {
        self.extent.bytes()
    }

    /// Its rows in the order `b, head, token`, once every kernel is done.
    pub(super) fn download(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.extent.filled_bytes()];
        if self.extent.is_in_order() {
            self.allocation.copy_out(self.guard_bytes, &mut bytes)?;
            return Ok(bytes);
        }
        let (mut rows, size) = (self.extent.rows(), self.extent.row_bytes());
        for (start, end) in &self.runs {
            let mut run = vec![0; end - start];
            self.allocation.copy_out(self.guard_bytes + start, &mut run)?;
            for row in run.chunks_exact(size) {
                let (_, number) = rows.next().expect("runs consist of rows");
                bytes[number * size..][..size].copy_from_slice(row);
            }
        }
        Ok(bytes)
    }

    /// Whether the guard zones, and an input's bytes, are what they were.
    ///
    /// # Errors
    /// [`Kind::OutOfBounds`] with the changed byte nearest a row; [`Kind::InputChanged`] with the first one.
    pub fn check(&self) -> Result<(), Error> {
        let buffer = || self.name.clone();
        for zone in guard_zones(&self.runs, self.extent.bytes(), self.guard_bytes) {
            let mut bytes = vec![0; zone.end - zone.start];
            self.allocation.copy_out(zone.start, &mut bytes)?;
            if let Some((side, distance)) = zone.changed(&bytes) {
                return Err(Kind::OutOfBounds { buffer: buffer(), side, distance }.into());
            }
        }
        if let Some(uploaded) = &self.uploaded {
            let now = self.download()?;
            if let Some(byte) = now.iter().zip(uploaded).position(|(now, before)| now != before) {
                return Err(Kind::InputChanged { buffer: buffer(), byte }.into());
            }
        }
        Ok(())
    }
}

/// Bytes of an allocation that nobody may write, next to bytes of a buffer.
#[derive(Debug, PartialEq)]
struct Zone {
    start: usize,
    end: usize,
    /// Whether the buffer's bytes follow it, rather than precede it.
    before: bool,
}

impl Zone {
    /// Side and distance, from 1, of the changed byte that is nearest to the buffer's.
    fn changed(&self, bytes: &[u8]) -> Option<(&'static str, usize)> {
        let changed = |byte: &u8| *byte != GUARD;
        if self.before {
            bytes.iter().rposition(changed).map(|position| ("before", bytes.len() - position))
        } else {
            bytes.iter().position(changed).map(|position| ("behind", position + 1))
        }
    }
}

/// `guard` bytes on either side of `runs`, which lie in `bytes` bytes behind the first zone; a gap that is shorter than
/// two zones is shared.
fn guard_zones(runs: &[(usize, usize)], bytes: usize, guard: usize) -> Vec<Zone> {
    let mut zones = vec![Zone { start: 0, end: guard, before: true }];
    for (earlier, later) in runs.iter().zip(runs.iter().skip(1)) {
        let (start, end) = (guard + earlier.1, guard + later.0);
        let middle = start + (end - start).div_ceil(2).min(guard);
        zones.push(Zone { start, end: middle, before: false });
        zones.push(Zone { start: middle.max(end - guard), end, before: true });
    }
    zones.push(Zone { start: guard + bytes, end: bytes + 2 * guard, before: false });
    zones.retain(|zone| zone.start < zone.end);
    zones
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guard_zones_lie_round_the_buffer_and_in_its_gaps() {
        let zone = |start, end, before| Zone { start, end, before };
        assert_eq!(guard_zones(&[(0, 50)], 50, 0), []);
        assert_eq!(guard_zones(&[(0, 50)], 50, 10), [zone(0, 10, true), zone(60, 70, false)]);
        let zones = guard_zones(&[(0, 10), (13, 20), (120, 130)], 130, 10);
        let gaps = [zone(20, 22, false), zone(22, 23, true), zone(30, 40, false), zone(120, 130, true)];
        assert_eq!(zones[1..5], gaps);
        assert_eq!(zones[5], zone(140, 150, false));
    }

    #[test]
    fn the_changed_byte_nearest_the_buffer_is_named() {
        let mut bytes = vec![GUARD; 10];
        let zone = |before| Zone { start: 0, end: 10, before };
        assert_eq!(zone(true).changed(&bytes), None);
        (bytes[2], bytes[6]) = (0, 0);
        assert_eq!(zone(true).changed(&bytes), Some(("before", 4)));
        assert_eq!(zone(false).changed(&bytes), Some(("behind", 3)));
    }
}
