//! The frozen generator, one mixing function used in two ways.
//!
//! [`Stream`] draws tensors: a hash of (seed, tensor, coordinates) and nothing that remembers what was drawn before. So an
//! element keeps its value when a size shrinks, tensors fill in parallel, and the bits are the same everywhere:
//! integer operations, and `+ - * / sqrt` on what they give. Changing anything here changes every stored case; a test
//! pins the digests.
//!
//! [`Random`] draws everything else, one number after the other.

/// One row of a tensor: everything but the last coordinate is already mixed in.
#[derive(Clone, Copy)]
pub(crate) struct Stream(u64);

impl Stream {
    /// The stream of row `[b, h, i]` of tensor number `tag`.
    pub(crate) fn new(seed: u64, tag: u64, row: [usize; 3]) -> Self {
        let start = mix(seed ^ mix(tag.wrapping_mul(0xd1b5_4a32_d192_ed03)));
        Stream(
            row.iter().fold(start, |state, &coordinate| {
                mix(state ^ (coordinate as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            }),
        )
    }

    /// 64 bits for element `index` of the row; `round` tells several draws for one element apart.
    pub(crate) fn bits(self, index: usize, round: u64) -> u64 {
        mix(self.0 ^ (index as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ round.wrapping_mul(0x94d0_49bb_1331_11eb))
    }

    /// Uniform in `[0, 1)`, a multiple of `2^-53`.
    pub(crate) fn unit(self, index: usize, round: u64) -> f64 {
        (self.bits(index, round) >> 11) as f64 * 2f64.powi(-53)
    }

    /// Uniform in `[-1, 1)`.
    pub(crate) fn signed(self, index: usize, round: u64) -> f64 {
        2.0 * self.unit(index, round) - 1.0
    }

    /// Uniform in `0..limit`.
    pub(crate) fn below(self, index: usize, round: u64, limit: usize) -> usize {
        ((u128::from(self.bits(index, round)) * limit as u128) >> 64) as usize
    }

    /// Bell-shaped with mean 0 and variance 1: the scaled sum of eight uniform numbers of 16 bits, within 4.9.
    pub(crate) fn bell(self, index: usize, round: u64) -> f64 {
        let lanes = |bits: u64| (0..4).map(|lane| (bits >> (16 * lane)) & 0xffff).sum::<u64>();
        let sum = lanes(self.bits(index, 2 * round)) + lanes(self.bits(index, 2 * round + 1));
        // Eight lanes of mean 65535 / 2 and variance (2^32 - 1) / 12.
        (sum as f64 - 262_140.0) / (8.0 * 4_294_967_295.0 / 12.0f64).sqrt()
    }
}

/// Random numbers one after the other, a function of the seed alone: splitmix64.
///
/// # Examples
/// ```
/// use nsa_corpus::Random;
/// let mut random = Random::new(0);
/// assert_eq!(random.bits(), 0xe220_a839_7b1d_cdaf); // as published for this seed
/// assert!(random.below(6) < 6 && random.unit() < 1.0);
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `0..limit`; 0 where `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// Uniform in `[0, 1)`, a multiple of `2^-53`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * 2f64.powi(-53)
    }

    /// Puts `items` into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): every input bit reaches every output bit.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Random, Stream};

    #[test]
    fn numbers_in_a_row_are_those_of_splitmix64() {
        let mut random = Random::new(1_234_567);
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([(); 3].map(|()| random.bits()), published);
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_reaches_every_order() {
        let orders: std::collections::BTreeSet<Vec<u8>> = (0..200)
            .map(|seed| {
                let mut items = vec![1, 2, 3];
                Random::new(seed).shuffle(&mut items);
                items
            })
            .collect();
        assert!(orders.len() == 6 && orders.iter().all(|order| order.iter().sum::<u8>() == 6), "{orders:?}");
        assert_eq!(Random::new(1).below(0), 0);
    }

    #[test]
    fn the_bits_are_frozen() {
        let stream = Stream::new(1, 2, [3, 4, 5]);
        assert_eq!([stream.bits(0, 0), stream.bits(1, 0), stream.bits(0, 1)].map(|bits| bits >> 40), FROZEN);
    }
    const FROZEN: [u64; 3] = [9_324_119, 11_939_211, 14_800_783];

    #[test]
    fn bell_shaped_numbers_have_mean_0_and_variance_1() {
        let draws: Vec<f64> =
            (0..40_000).map(|index| Stream::new(9, 0, [0, 0, index % 200]).bell(index / 200, 0)).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| draw * draw).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn uniform_numbers_reach_every_value_and_no_other() {
        let mut seen = [0; 5];
        for index in 0..1000 {
            seen[Stream::new(3, 1, [0, 0, 0]).below(index, 0, 5)] += 1;
        }
        assert!(seen.iter().all(|count| (120..280).contains(count)), "{seen:?}");
    }
}
