//! Random cases over every option, small enough to run hundreds of them a second.

use crate::{Case, Mask, Override, Random, Selection, Sizes, Tensor, Values};

/// Block sizes to draw from: 1, powers of two and their neighbours, to well past 64.
const BLOCK_SIZES: [usize; 26] =
    [1, 1, 2, 2, 3, 4, 4, 5, 7, 8, 8, 9, 12, 15, 16, 16, 17, 24, 31, 32, 33, 48, 64, 65, 96, 160];
/// Head dims to draw from.
const DIMS: [usize; 18] = [1, 1, 2, 3, 4, 5, 7, 8, 8, 12, 16, 16, 24, 32, 33, 40, 64, 128];
/// Head dims beyond those, for a case that is large in its features.
const WIDE: [usize; 12] = [65, 72, 96, 127, 128, 129, 136, 192, 200, 255, 256, 257];
/// Query heads of a kv head.
const GROUPS: [usize; 12] = [1, 1, 1, 2, 2, 3, 4, 4, 8, 16, 17, 32];

impl Case {
    /// The generated case number `seed`: sizes, options and distributions are drawn; one case in six is large in one size. `size`
    /// bounds the cost: about 20000 multiply-adds of the forward for each unit of it.
    ///
    /// # Examples
    /// ```
    /// use nsa_corpus::{Case, Dtype};
    /// let case = Case::generate(24, 7);
    /// assert_eq!(case, Case::generate(24, 7));
    /// assert!(case.materialize(Dtype::F32).is_ok());
    /// ```
    pub fn generate(size: usize, seed: u64) -> Case {
        // Seeds are often neighbours, or a step of `Random` apart: mixed, their numbers have nothing in common.
        let g = &mut Draw { random: Random::new(Random::new(seed).bits()), size };
        let sizes = sizes(g);
        let mut case = Case::ordinary(sizes, g.random.bits() >> 32);
        case.include_block_causal = !one_in(g, 6);
        case.sliding_window = one_in(g, 3).then(|| window(g, &sizes));
        case.q = values(g);
        case.k = values(g);
        case.v = values(g);
        case.selection = selection(g, &sizes);
        case.mask = mask(g, &sizes);
        case.sel_scale = (!one_in(g, 3)).then(|| sel_scale(g));
        case.d_out = (!one_in(g, 5)).then(|| cotangent(g));
        case.d_lse = one_in(g, 3).then(|| cotangent(g));
        case.d_sliding = (case.sliding_window.is_some() && !one_in(g, 3)).then(|| cotangent(g));
        plant(g, &mut case);
        case
    }
}

/// For properties that quickcheck tries: [`Case::generate`] of a seed that it draws, and [`Case::shrinks`].
#[cfg(feature = "quickcheck")]
impl quickcheck::Arbitrary for Case {
    fn arbitrary(g: &mut quickcheck::Gen) -> Self {
        // quickcheck favours 0 and the extremes of a number: one in several would be the same case.
        let seed = (0..4).fold(0, |seed, _| Random::new(seed ^ u64::arbitrary(g)).bits());
        Case::generate(g.size(), seed)
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        Box::new(self.shrinks())
    }
}

/// Where the numbers of a generated case come from, and how much it may cost.
struct Draw {
    random: Random,
    size: usize,
}

fn one_of<T: Copy>(g: &mut Draw, choices: &[T]) -> T {
    choices[g.random.below(choices.len())]
}

fn one_in(g: &mut Draw, share: usize) -> bool {
    below(g, share) == 0
}

/// Uniform in `0..limit`.
fn below(g: &mut Draw, limit: usize) -> usize {
    g.random.below(limit)
}

fn sizes(g: &mut Draw) -> Sizes {
    let kv_heads = one_of(g, &[1, 1, 2, 2, 3]);
    let q_heads = kv_heads * one_of(g, &GROUPS);
    let dim = one_of(g, &DIMS);
    let block_size = one_of(g, &BLOCK_SIZES);
    let mut sizes = Sizes {
        batch: one_of(g, &[1, 1, 1, 2, 3]),
        q_heads,
        kv_heads,
        seq_len: seq_len(g, block_size),
        dim,
        value_dim: if one_in(g, 4) { one_of(g, &DIMS) } else { dim },
        block_size,
        num_sel: one_of(g, &[0, 1, 1, 2, 2, 3, 4, 6, 9]),
        sel_heads: if one_in(g, 4) { q_heads } else { kv_heads },
    };
    let stretched = one_in(g, 6).then(|| one_of(g, &Axis::ALL));
    if let Some(axis) = stretched {
        stretch(g, &mut sizes, axis);
    }
    afford(g, &mut sizes, stretched);
    sizes
}

/// A few blocks, and in most cases a ragged end.
fn seq_len(g: &mut Draw, block_size: usize) -> usize {
    let most = if block_size > 32 { 3 } else { 7 };
    let whole = block_size * below(g, most + 1);
    (whole + ragged_end(g, block_size)).max(1)
}

/// Tokens of the last block beyond the whole ones: in most cases some.
fn ragged_end(g: &mut Draw, block_size: usize) -> usize {
    match below(g, 4) {
        0 => 0,
        1 => 1,
        2 => block_size - 1,
        _ => below(g, block_size),
    }
}

/// What may be large in a case: one of them at a time, so that the case stays cheap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Batch,
    KvHeads,
    Groups,
    Blocks,
    Features,
    Slots,
    BlockSize,
}

impl Axis {
    const ALL: [Axis; 7] =
        [Axis::Batch, Axis::KvHeads, Axis::Groups, Axis::Blocks, Axis::Features, Axis::Slots, Axis::BlockSize];
}

/// Makes one size as large as real kernels' constants, and what they leave out, are: tiles of heads and of features, loops
/// over 16 slots, numbers in eight bits, blocks of 256, running sums over hundreds of blocks.
fn stretch(g: &mut Draw, sizes: &mut Sizes, axis: Axis) {
    let per_query_head = sizes.sel_heads != sizes.kv_heads;
    let groups = (sizes.q_heads / sizes.kv_heads).min(4);
    match axis {
        Axis::Batch => sizes.batch = one_of(g, &[4, 5, 7, 8, 9, 16]),
        Axis::KvHeads => sizes.kv_heads = one_of(g, &[4, 5, 6, 8, 9, 16]),
        Axis::Groups => sizes.kv_heads = one_of(g, &[1, 2, 3, 4]),
        Axis::Blocks => {
            let blocks = one_of(g, &[33, 64, 65, 128, 129, 255, 256, 257, 300, 513]);
            sizes.block_size = one_of(g, &[1, 1, 2, 3]);
            sizes.seq_len = (blocks - 1) * sizes.block_size + ragged_end(g, sizes.block_size).max(1);
        }
        Axis::Features => {
            sizes.dim = one_of(g, &WIDE);
            sizes.value_dim = if one_in(g, 2) { one_of(g, &WIDE) } else { sizes.dim };
        }
        Axis::Slots => sizes.num_sel = one_of(g, &[8, 15, 16, 17, 32, 33, 64, 65, 256, 257]),
        Axis::BlockSize => {
            sizes.block_size = one_of(g, &[127, 128, 129, 160, 192, 255, 256, 257, 257, 320]);
            sizes.seq_len = sizes.block_size + ragged_end(g, sizes.block_size);
        }
    }
    let groups = if axis == Axis::Groups { one_of(g, &[8, 9, 15, 16, 17, 24, 32, 33, 64]) } else { groups };
    sizes.q_heads = sizes.kv_heads * groups;
    sizes.sel_heads = if per_query_head { sizes.q_heads } else { sizes.kv_heads };
}

/// Multiply-adds of one forward, roughly.
fn cost(sizes: &Sizes) -> usize {
    let keys = sizes.block_size * (sizes.num_sel + 1);
    sizes.batch * sizes.q_heads * sizes.seq_len * keys * (sizes.dim + sizes.value_dim)
}

/// Makes sizes smaller, one at random at a time, until the case is cheap enough: the stretched one only when the others do not
/// get there, and a sequence of large blocks not before its other sizes.
fn afford(g: &mut Draw, sizes: &mut Sizes, stretched: Option<Axis>) {
    // Few large things cost more than many small ones of as many multiply-adds.
    let limit = if stretched.is_some() { 6_000 } else { 20_000 } * g.size.max(1);
    let mut tries = 0;
    while cost(sizes) > limit {
        tries += 1;
        let axis = one_of(g, &Axis::ALL);
        let long = axis == Axis::Blocks && stretched == Some(Axis::BlockSize) && tries < 50;
        if long || Some(axis) == stretched && tries < 200 {
            continue;
        }
        shrink_axis(sizes, axis);
        if sizes.seq_len == 1 && sizes.block_size > 1 && sizes.num_sel <= 1 && sizes.dim == 1 && sizes.value_dim == 1 {
            sizes.block_size = sizes.block_size.div_ceil(2);
        }
    }
}

fn shrink_axis(sizes: &mut Sizes, axis: Axis) {
    let per_query_head = sizes.sel_heads != sizes.kv_heads;
    let groups = sizes.q_heads / sizes.kv_heads;
    match axis {
        Axis::Batch => sizes.batch = 1,
        Axis::KvHeads => sizes.kv_heads = 1,
        Axis::Groups => {}
        Axis::Blocks => sizes.seq_len = sizes.seq_len.div_ceil(2),
        Axis::Features => (sizes.dim, sizes.value_dim) = (sizes.dim.div_ceil(2), sizes.value_dim.div_ceil(2)),
        Axis::Slots => sizes.num_sel = sizes.num_sel.div_ceil(2),
        Axis::BlockSize => sizes.block_size = sizes.block_size.min(sizes.seq_len),
    }
    sizes.q_heads = sizes.kv_heads * if axis == Axis::Groups { groups.div_ceil(2) } else { groups };
    sizes.sel_heads = if per_query_head { sizes.q_heads } else { sizes.kv_heads };
}

fn window(g: &mut Draw, sizes: &Sizes) -> usize {
    match below(g, 4) {
        0 => 0,
        1 => sizes.block_size,
        2 => sizes.seq_len + below(g, 3),
        _ => below(g, sizes.seq_len),
    }
}

fn values(g: &mut Draw) -> Values {
    match below(g, 20) {
        0..6 => Values::normal(),
        6 => Values::Uniform { scale: one_of(g, &[1.0, 4.0]) },
        7 | 8 => Values::Integers { limit: one_of(g, &[1, 3]) },
        9 => Values::PowerGrid { eighths: 3, lowest: -3, highest: 2 },
        10 => Values::ConstantRows { scale: 1.0 },
        11 => Values::OutlierChannels { every: 8, factor: 20.0 },
        12 => Values::Normal { scale: 8.0 },
        13 => Values::Normal { scale: one_of(g, &[30.0, 1e-3]) },
        14 => Values::Offset { center: 100.0, spread: 0.05 },
        15 => Values::Alternating { size: 50.0 },
        16 => Values::WideExponents { lowest: -12, highest: 4 },
        17 => Values::OneHot { value: 1.0 },
        18 => Values::zeros(),
        _ => Values::ones(),
    }
}

fn cotangent(g: &mut Draw) -> Values {
    match below(g, 10) {
        0..5 => Values::normal(),
        5 => Values::ones(),
        6 => Values::OneHot { value: 1.0 },
        7 => Values::Normal { scale: 1e-8 },
        8 => Values::Normal { scale: 1e5 },
        _ => values(g),
    }
}

fn sel_scale(g: &mut Draw) -> Values {
    match below(g, 6) {
        0 => Values::zeros(),
        1 | 2 => Values::ones(),
        _ => Values::normal(),
    }
}

fn selection(g: &mut Draw, sizes: &Sizes) -> Selection {
    match below(g, 14) {
        0..4 => Selection::Past {},
        4 => Selection::FirstPreviousPast {},
        5 => Selection::ZeroOrOne {},
        6 => Selection::Distinct {},
        7 | 8 => Selection::Any {},
        9 => Selection::Duplicates {},
        10 => Selection::Own {},
        11 => Selection::Future {},
        12 => Selection::Last {},
        _ if one_in(g, 2) => Selection::Same {},
        _ => Selection::Fixed { block: below(g, sizes.seq_len.div_ceil(sizes.block_size)) },
    }
}

fn mask(g: &mut Draw, sizes: &Sizes) -> Mask {
    match below(g, 8) {
        0..4 => Mask::Random {},
        4 => Mask::None {},
        5 => Mask::One { slot: below(g, sizes.num_sel.max(1)) },
        _ => Mask::All {},
    }
}

/// Now and then replaces an element: by a NaN or an infinity, or by something plain.
fn plant(g: &mut Draw, case: &mut Case) {
    if !one_in(g, 12) {
        return;
    }
    let Ok(shape) = case.shape() else { return };
    let tensor = one_of(g, &[Tensor::Q, Tensor::K, Tensor::K, Tensor::V, Tensor::V]);
    let index: Vec<usize> = tensor.shape(&shape).iter().map(|&size| below(g, size)).collect();
    let value = one_of(g, &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1.0, -4.0]);
    case.overrides.push(Override::new(tensor, &index, value));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::features::FEATURES;
    use crate::{Dtype, Shape};

    fn generated(count: u64, size: usize) -> Vec<Case> {
        (0..count).map(|seed| Case::generate(size, seed)).collect()
    }

    #[test]
    fn every_generated_case_is_valid_in_every_format() {
        for case in generated(400, 10) {
            for dtype in Dtype::ALL {
                case.materialize(dtype).unwrap_or_else(|error| panic!("{error}: {}", case.to_toml()));
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_cases() {
        assert_eq!(generated(50, 100), generated(50, 100));
        assert_ne!(generated(2, 100)[0], generated(2, 100)[1]);
    }

    /// As a user's property meets it: cases are drawn, and the counterexample is the smallest.
    #[cfg(feature = "quickcheck")]
    #[test]
    fn quickcheck_draws_cases_and_makes_a_counterexample_small() {
        use quickcheck::{Arbitrary, Gen, QuickCheck};
        let cases: Vec<Case> = (0..50).map(|seed| Case::arbitrary(&mut Gen::from_size_and_seed(10, seed))).collect();
        assert!(cases.windows(2).all(|pair| pair[0] != pair[1]), "each seed of quickcheck draws its own");
        let valid = |case: Case| case.check().is_ok();
        QuickCheck::new().tests(100).quickcheck(valid as fn(Case) -> bool);
        let short = |case: Case| case.sizes.seq_len < 5;
        let failure = QuickCheck::new().quicktest(short as fn(Case) -> bool).unwrap_err();
        assert!(format!("{failure:?}").contains("seq_len: 5,"), "{failure:?}");
    }

    #[test]
    fn every_option_and_every_kind_of_value_is_drawn() {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let cases = generated(2000, 100);
        cases.iter().flat_map(Case::features).for_each(|tag| *seen.entry(tag).or_default() += 1);
        let drawn = FEATURES.iter().filter(|feature| feature.drawn).map(|feature| feature.name);
        let never: Vec<_> = drawn.filter(|name| seen.get(name).is_none_or(|&count| count < 8)).collect();
        assert!(never.is_empty(), "{never:?} are hardly ever drawn: {seen:?}");
        let text: String = cases.iter().map(Case::to_toml).collect();
        for kind in [
            "zeros",
            "constant",
            "normal",
            "uniform",
            "integers",
            "power_grid",
            "constant_rows",
            "outlier_channels",
            "offset",
            "alternating",
            "wide_exponents",
            "one_hot",
            "past",
            "first_previous_past",
            "zero_or_one",
            "distinct",
            "any",
            "duplicates",
            "own",
            "future",
            "last",
            "same",
            "fixed",
            "all",
            "none",
            "random",
            "one",
        ] {
            assert!(text.contains(&format!("kind = \"{kind}\"")), "{kind}");
        }
    }

    /// What kernels have constants for: 16 slots, eight bits, 16 heads, 256 keys or features, many blocks.
    #[test]
    fn sizes_beyond_the_constants_of_real_kernels_are_drawn() {
        let cases = generated(4000, 48);
        let drawn = |holds: &dyn Fn(&Shape) -> bool| cases.iter().filter(|case| holds(&case.shape().unwrap())).count();
        let counts = [
            (
                "more than 256 keys in a block, and as many tokens",
                drawn(&|shape| shape.block_size() > 256 && shape.seq_len() > 256),
            ),
            ("two blocks of 255 keys", drawn(&|shape| shape.block_size() >= 255 && shape.blocks() > 1)),
            ("more than 128 features", drawn(&|shape| shape.dim() > 128)),
            ("more than 256 features", drawn(&|shape| shape.dim() > 256 || shape.value_dim() > 256)),
            ("more than 16 slots", drawn(&|shape| shape.num_sel() > 16)),
            ("more than 256 slots", drawn(&|shape| shape.num_sel() > 256)),
            ("more than 256 blocks", drawn(&|shape| shape.blocks() > 256)),
            ("more than 16 heads, several groups", drawn(&|shape| shape.sel_groups() > 16 && shape.kv_heads() > 1)),
            ("more than 8 kv heads", drawn(&|shape| shape.kv_heads() > 8)),
            ("more than 4 batch entries", drawn(&|shape| shape.batch() > 4)),
        ];
        let rare: Vec<_> = counts.iter().filter(|(_, count)| *count < 8).collect();
        println!("{counts:?}");
        assert!(rare.is_empty(), "{rare:?} of {counts:?}");
    }

    #[test]
    fn the_size_bounds_the_cost() {
        for size in [1, 10, 100] {
            for case in generated(300, size) {
                assert!(cost(&case.sizes) <= 20_000 * size, "{}", case.to_toml());
            }
        }
    }
}
