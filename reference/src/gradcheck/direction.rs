//! Directions in which a loss is differentiated: one element, or random signs within a region of one tensor.

use std::ops::Range;

use ndarray::IxDyn;
use nsa_corpus::Random;

use super::Variable;

/// A direction: +1 or -1 at every element of a region of one tensor, 0 elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// Position of the tensor among the problem's variables.
    pub variable: usize,
    /// The region, one range for each axis.
    pub region: Vec<Range<usize>>,
    /// In words: `"one token"`.
    pub what: String,
    /// Where the signs come from; `None`: all +1.
    signs: Option<u64>,
}

impl Direction {
    /// The element at row-major position `flat` of a tensor of `shape`.
    pub(super) fn element(variable: usize, shape: &[usize], flat: usize) -> Self {
        let mut rest = flat;
        let mut region: Vec<Range<usize>> = shape
            .iter()
            .rev()
            .map(|len| {
                let at = rest % len;
                rest /= len;
                at..at + 1
            })
            .collect();
        region.reverse();
        Direction { variable, region, what: "one element".to_owned(), signs: None }
    }

    /// Random signs within `region`.
    pub fn signed(variable: usize, region: Vec<Range<usize>>, seed: u64, what: String) -> Self {
        Direction { variable, region, what, signs: Some(seed) }
    }

    /// The `count`-th direction of a tensor: all of it, then one index of each axis and one block in turn.
    pub(super) fn draw(index: usize, variable: &Variable, count: usize, seed: u64) -> Self {
        let mut region = variable.everywhere();
        let draw = |salt: u64, end: usize| (mix(seed ^ mix(salt ^ ((index as u64) << 40))) % end as u64) as usize;
        let patterns = variable.axes.len() + 2;
        let (pattern, salt) = (count % patterns, count as u64 + 1);
        let mut what = format!("all of {}", variable.name);
        if let Some(axis) = pattern.checked_sub(1).filter(|axis| *axis < variable.axes.len()) {
            let at = draw(salt, region[axis].end);
            region[axis] = at..at + 1;
            what = format!("one {}", variable.axes[axis]);
        } else if let (true, Some((axis, size))) = (pattern > 0, variable.block) {
            let len = region[axis].end;
            let start = draw(salt, len.div_ceil(size)) * size;
            region[axis] = start..(start + size).min(len);
            what = format!("one block of {size} along {}", variable.axes[axis]);
        }
        Direction::signed(index, region, mix(seed).wrapping_add(salt), what)
    }

    /// Number of elements.
    pub(super) fn size(&self) -> usize {
        self.region.iter().map(ExactSizeIterator::len).product()
    }

    /// Two halves along the longest axis, with the signs that they had; `None` for one element.
    pub(super) fn halves(&self) -> Option<[Direction; 2]> {
        let (axis, range) = self.region.iter().enumerate().max_by_key(|(_, range)| range.len())?;
        if range.len() < 2 {
            return None;
        }
        let middle = range.start + range.len() / 2;
        let half = |range: Range<usize>| {
            let mut half = self.clone();
            half.region[axis] = range;
            half
        };
        Some([half(range.start..middle), half(middle..range.end)])
    }

    /// Calls `visit(index, sign)` for every element, in row-major order. `shape` is the whole tensor's: an element's sign
    /// depends on its place in it, not on the region.
    pub(super) fn for_each(&self, shape: &[usize], mut visit: impl FnMut(&IxDyn, f64)) {
        if self.size() == 0 {
            return;
        }
        let mut at: Vec<usize> = self.region.iter().map(|range| range.start).collect();
        loop {
            let flat = at.iter().zip(shape).fold(0, |flat, (at, len)| flat * len + at);
            let sign = match self.signs {
                Some(seed) if mix(seed ^ mix(flat as u64)) & 1 == 1 => -1.0,
                _ => 1.0,
            };
            visit(&IxDyn(&at), sign);
            let Some(axis) = (0..at.len()).rev().find(|&axis| at[axis] + 1 < self.region[axis].end) else { return };
            at[axis] += 1;
            for later in axis + 1..at.len() {
                at[later] = self.region[later].start;
            }
        }
    }
}

/// A bijection that spreads every bit.
fn mix(value: u64) -> u64 {
    Random::new(value).bits()
}

#[cfg(test)]
mod tests {
    use ndarray::Dimension;

    use super::*;

    fn visited(direction: &Direction, shape: &[usize]) -> Vec<(Vec<usize>, f64)> {
        let mut visited = Vec::new();
        direction.for_each(shape, |at, sign| visited.push((at.as_array_view().to_vec(), sign)));
        visited
    }

    #[test]
    fn halves_hold_the_same_elements_and_signs_once() {
        let whole = Direction::signed(0, vec![0..2, 1..4], 9, "some".to_owned());
        let mut parts: Vec<_> = whole.halves().unwrap().iter().flat_map(|half| visited(half, &[2, 5])).collect();
        parts.sort_by(|left, right| left.0.cmp(&right.0));
        assert_eq!(parts, visited(&whole, &[2, 5]));
        assert!(parts.iter().any(|(_, sign)| *sign < 0.0) && parts.iter().any(|(_, sign)| *sign > 0.0));
    }

    #[test]
    fn an_element_is_named_by_its_row_major_place() {
        let element = Direction::element(0, &[2, 3, 4], 21);
        assert_eq!(visited(&element, &[2, 3, 4]), [(vec![1, 2, 1], 1.0)]);
        assert!(element.halves().is_none());
    }

    #[test]
    fn signs_follow_from_the_seed_and_the_place_alone() {
        // The published first outputs of splitmix64 from 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
        let whole = Direction::signed(0, vec![0..7, 0..9], 5, "all".to_owned());
        assert_eq!(whole.size(), 63);
        for (at, sign) in visited(&whole, &[7, 9]) {
            let odd = mix(5 ^ mix((at[0] * 9 + at[1]) as u64)) % 2 == 1;
            assert_eq!(sign, if odd { -1.0 } else { 1.0 }, "{at:?}");
        }
    }

    #[test]
    fn places_are_drawn_anew_for_every_direction_tensor_and_seed() {
        let tensor = ndarray::Array2::<f64>::zeros((1000, 30));
        let variable = Variable::new("k", tensor.clone(), tensor).unwrap();
        let variable = variable.with_axes(&["token", "feature"]).unwrap().with_block("feature", 4);
        let positions = |axis: usize, index: usize, seed: u64| -> Vec<usize> {
            let counts = (0..40).map(|turn| 4 * turn + axis + 1);
            counts.map(|count| Direction::draw(index, &variable, count, seed).region[axis].start).collect()
        };
        for seed in [0, 3] {
            let mut tokens = positions(0, 0, seed);
            assert_ne!(tokens, positions(0, 1, seed));
            assert_ne!(tokens, positions(0, 0, seed + 1));
            tokens.sort_unstable();
            tokens.dedup();
            assert!(tokens.len() > 30, "{tokens:?}");
        }
        let blocks: Vec<_> =
            (0..60).map(|turn| Direction::draw(0, &variable, 4 * turn + 3, 0).region[1].clone()).collect();
        assert!(
            blocks.iter().all(|block| block.start % 4 == 0 && block.end == (block.start + 4).min(30)),
            "{blocks:?}"
        );
        assert!((0..8).all(|block| blocks.iter().any(|drawn| drawn.start == 4 * block)), "{blocks:?}");
    }

    #[test]
    fn drawn_directions_reach_every_axis_and_the_block() {
        let tensor = ndarray::Array3::<f64>::zeros((3, 10, 4));
        let variable = Variable::new("k", tensor.clone(), tensor).unwrap();
        let variable = variable.with_axes(&["head", "token", "feature"]).unwrap().with_block("token", 4);
        let drawn: Vec<_> = (0..20).map(|count| Direction::draw(0, &variable, count, 3)).collect();
        for what in ["all of k", "one head", "one token", "one feature", "one block of 4 along token"] {
            assert_eq!(drawn.iter().filter(|direction| direction.what == what).count(), 4, "{what}");
        }
        assert!(drawn.iter().all(|direction| direction.size() > 0));
        assert_eq!((drawn[0].what.as_str(), drawn[0].size()), ("all of k", 120));
        assert_eq!(drawn[4].what, "one block of 4 along token");
    }
}
