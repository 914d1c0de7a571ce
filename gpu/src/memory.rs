//! Device memory with a guard zone on both sides, and the tensors that lie in it.
//!
//! A guard zone holds a known pattern; whatever a kernel wrote beyond its buffer shows there. Outputs can be filled with
//! bytes that are NaN in every element type, so that what a kernel did not write shows too.

use half::{bf16, f16};
use ndarray::{ArrayViewD, Axis, Ix4};
use nsa_corpus::Element;

use crate::device::Device;
use crate::dims::Layout;
use crate::driver::{Address, Allocation};
use crate::error::{Error, Kind};

/// All bits set: NaN as f32, f16 and bf16, and an index far out of range as u32.
const POISON: u8 = 0xff;
const GUARD: u8 = 0xa5;

/// How buffers are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Safety {
    /// Bytes of guard zone on either side of each buffer, a multiple of 256 (the alignment of what lies between).
    pub guard_bytes: usize,
    /// Fill outputs and workspaces with NaN before the launch.
    pub poison: bool,
}

impl Safety {
    /// Guard zones and poison.
    pub const CHECKED: Safety = Safety { guard_bytes: 4096, poison: true };
    /// Neither, for timings.
    pub const NONE: Safety = Safety { guard_bytes: 0, poison: false };
}

/// Bytes on the device with a guard zone on both sides.
#[derive(Debug)]
pub struct Buffer {
    name: String,
    allocation: Allocation,
    guard_bytes: usize,
    bytes: usize,
    // What an input held when it was uploaded, where it is to be checked afterwards.
    uploaded: Option<Vec<u8>>,
}

impl Buffer {
    /// `bytes` of uninitialised (or poisoned) memory.
    pub(crate) fn new(device: &Device, name: &str, bytes: usize, safety: Safety) -> Result<Self, Error> {
        let guard_bytes = safety.guard_bytes.next_multiple_of(256);
        let allocation = Allocation::new(&device.context, bytes + 2 * guard_bytes)?;
        if guard_bytes > 0 {
            allocation.fill(0, guard_bytes, GUARD)?;
            allocation.fill(guard_bytes + bytes, guard_bytes, GUARD)?;
        }
        let buffer = Buffer { name: name.to_owned(), allocation, guard_bytes, bytes, uploaded: None };
        if safety.poison {
            buffer.fill(POISON)?;
        }
        Ok(buffer)
    }

    /// A copy of `source` on the device. With guard zones, the source is kept to compare the buffer with afterwards.
    pub(crate) fn upload(device: &Device, name: &str, source: Vec<u8>, safety: Safety) -> Result<Self, Error> {
        let unpoisoned = Safety { poison: false, ..safety };
        let mut buffer = Buffer::new(device, name, source.len(), unpoisoned)?;
        buffer.allocation.copy_in(buffer.guard_bytes, &source)?;
        buffer.uploaded = (safety.guard_bytes > 0).then_some(source);
        Ok(buffer)
    }

    pub(crate) fn fill(&self, value: u8) -> Result<(), Error> {
        if self.bytes == 0 { Ok(()) } else { self.allocation.fill(self.guard_bytes, self.bytes, value) }
    }

    /// Where the bytes lie.
    pub(crate) fn address(&self) -> Address {
        self.allocation.address(self.guard_bytes)
    }

    /// Bytes between the guard zones.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes with the guard zones.
    pub fn allocated_bytes(&self) -> usize {
        self.allocation.bytes()
    }

    /// The bytes, once every kernel is done.
    pub(crate) fn download(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.bytes];
        self.allocation.copy_out(self.guard_bytes, &mut bytes)?;
        Ok(bytes)
    }

    /// Whether the guard zones, and an input's bytes, are what they were.
    ///
    /// # Errors
    /// [`Kind::OutOfBounds`] with the changed byte nearest the buffer; [`Kind::InputChanged`] with the first one.
    pub fn check(&self) -> Result<(), Error> {
        let buffer = || self.name.clone();
        let mut zone = vec![0; self.guard_bytes];
        self.allocation.copy_out(0, &mut zone)?;
        if let Some(place) = zone.iter().rposition(|byte| *byte != GUARD) {
            let distance = self.guard_bytes - place;
            return Err(Kind::OutOfBounds { buffer: buffer(), side: "before", distance }.into());
        }
        self.allocation.copy_out(self.guard_bytes + self.bytes, &mut zone)?;
        if let Some(place) = zone.iter().position(|byte| *byte != GUARD) {
            return Err(Kind::OutOfBounds { buffer: buffer(), side: "behind", distance: place + 1 }.into());
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

/// The values of a `[b, heads, n, width]` tensor in memory order, as bytes of `element`.
pub(crate) fn encode(tensor: ArrayViewD<'_, f64>, element: Element, layout: Layout) -> Vec<u8> {
    in_order(tensor, layout, |values, bytes| {
        for value in values {
            match element {
                Element::F64 => bytes.extend(value.to_le_bytes()),
                Element::F32 => bytes.extend((value as f32).to_le_bytes()),
                Element::F16 => bytes.extend(f16::from_f64(value).to_le_bytes()),
                Element::Bf16 => bytes.extend(bf16::from_f64(value).to_le_bytes()),
            }
        }
    })
}

/// Block numbers in memory order.
pub(crate) fn encode_indices(tensor: ArrayViewD<'_, u32>, layout: Layout) -> Vec<u8> {
    in_order(tensor, layout, |values, bytes| values.for_each(|value| bytes.extend(value.to_le_bytes())))
}

/// One byte for each slot in memory order.
pub(crate) fn encode_mask(tensor: ArrayViewD<'_, bool>, layout: Layout) -> Vec<u8> {
    in_order(tensor, layout, |values, bytes| bytes.extend(values.map(u8::from)))
}

fn in_order<T: Copy>(
    mut tensor: ArrayViewD<'_, T>,
    layout: Layout,
    write: impl FnOnce(&mut dyn Iterator<Item = T>, &mut Vec<u8>),
) -> Vec<u8> {
    if layout == Layout::TokenMajor {
        tensor.swap_axes(1, 2);
    }
    let mut bytes = Vec::with_capacity(tensor.len() * size_of::<T>());
    match tensor.as_slice() {
        Some(values) => write(&mut values.iter().copied(), &mut bytes),
        None => write(&mut tensor.iter().copied(), &mut bytes),
    }
    bytes
}

/// The inverse of [`encode`]: a tensor of `shape`, `[b, heads, n, width]` or without the last axis.
pub(crate) fn decode(bytes: &[u8], element: Element, shape: &[usize], layout: Layout) -> ndarray::ArrayD<f64> {
    let values: Vec<f64> = match element {
        Element::F64 => bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        Element::F32 => bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
        Element::F16 => bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f64()).collect(),
        Element::Bf16 => bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f64()).collect(),
    };
    let width = shape.get(3).copied().unwrap_or(1);
    let (heads, tokens) = match layout {
        Layout::HeadMajor => (shape[1], shape[2]),
        Layout::TokenMajor => (shape[2], shape[1]),
    };
    let mut tensor = ndarray::Array::from_shape_vec(Ix4(shape[0], heads, tokens, width), values)
        .expect("the buffer was allocated with the tensor's size");
    if layout == Layout::TokenMajor {
        tensor.swap_axes(1, 2);
        tensor = tensor.as_standard_layout().into_owned();
    }
    if shape.len() == 3 { tensor.index_axis_move(Axis(3), 0).into_dyn() } else { tensor.into_dyn() }
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    #[test]
    fn tensors_come_back_from_either_layout_and_every_element() {
        let tensor = Array4::from_shape_fn((2, 3, 4, 5), |(b, h, i, d)| (b * 60 + h * 20 + i * 5 + d) as f64 - 50.0);
        for layout in [Layout::HeadMajor, Layout::TokenMajor] {
            for element in Element::ALL {
                let bytes = encode(tensor.view().into_dyn(), element, layout);
                assert_eq!(bytes.len(), tensor.len() * element.bytes());
                assert_eq!(decode(&bytes, element, &[2, 3, 4, 5], layout), tensor.clone().into_dyn());
            }
        }
        let bytes = encode(tensor.view().into_dyn(), Element::F32, Layout::TokenMajor);
        assert_eq!(f32::from_le_bytes(bytes[20..24].try_into().unwrap()), -30.0, "the second head follows the first");
    }

    #[test]
    fn poison_is_nan_in_every_element_type() {
        for element in [Element::F32, Element::F16, Element::Bf16] {
            assert!(
                decode(&[POISON; 4][..element.bytes()], element, &[1, 1, 1], Layout::HeadMajor)[[0, 0, 0]].is_nan()
            );
        }
    }
}
