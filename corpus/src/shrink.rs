//! Simpler cases than a given one: smaller sizes, then fewer options, then plainer values.
//!
//! Each step makes the tuple (sizes, options, kinds of values, elements, overrides) smaller in lexicographic order, so that
//! shrinking ends, and each yields a valid case. Where a size shrinks, what remains of every tensor of floating-point numbers keeps
//! its values: a distribution's, because each is a function of its own coordinates; a given tensor's, because its leading
//! part is used.

use crate::shrink_values::{distributions, elements};
use crate::{Case, Mask, Selection, Sizes};

impl Case {
    /// How many stages [`Case::shrinks_of`] has.
    pub const SHRINK_STAGES: usize = 4;

    /// Simpler cases, the greatest simplification first. Lazy: what a case's values could become is worked out only when
    /// all smaller sizes and options have been asked for.
    pub fn shrinks(&self) -> impl Iterator<Item = Case> + use<> {
        let case = self.clone();
        (0..Self::SHRINK_STAGES).flat_map(move |stage| case.shrinks_of(stage))
    }

    /// Simpler cases of one kind: smaller sizes (0), fewer options (1), plainer distributions (2), plainer elements (3).
    pub fn shrinks_of(&self, stage: usize) -> Box<dyn Iterator<Item = Case>> {
        let case = self.clone();
        match stage {
            0 => Box::new(sizes(&case).into_iter().flat_map(move |sizes| case.resized(sizes))),
            1 => Box::new(options(&case).into_iter()),
            2 => Box::new(distributions(&case).into_iter()),
            _ => Box::new(elements(case)),
        }
    }

    /// The case at smaller `sizes`: without the overrides that fall outside, and, where there are any, with them moved to
    /// the nearest element left. A planted NaN would otherwise hold every size up to its own place.
    fn resized(&self, sizes: Sizes) -> Vec<Case> {
        let mut case = Case { sizes, ..self.clone() };
        let Ok(shape) = case.shape() else { return Vec::new() };
        // A given index may name a block that is no more; a masked one may have named none at all.
        if let Selection::Given(given) = &self.selection {
            let blocks = shape.blocks() as f64;
            let Ok(given) = given.map(|index| index.rem_euclid(blocks)) else { return Vec::new() };
            case.selection = Selection::Given(given);
        }
        let mut dropped = case.clone();
        dropped.overrides.retain(|change| change.in_range(&shape));
        if dropped.overrides.len() == case.overrides.len() {
            return vec![dropped];
        }
        let moved = case.overrides.iter().filter_map(|change| change.moved(&shape)).collect();
        vec![dropped, Case { overrides: moved, ..case }]
    }
}

/// Smaller sizes: each to its least, halved, less one.
fn sizes(case: &Case) -> Vec<Sizes> {
    let now = case.sizes;
    let per_query_head = now.sel_heads != now.kv_heads;
    let heads = |kv_heads: usize, groups: usize| {
        let q_heads = kv_heads * groups;
        Sizes { q_heads, kv_heads, sel_heads: if per_query_head { q_heads } else { kv_heads }, ..now }
    };
    let groups = now.q_heads / now.kv_heads.max(1);
    let mut found = Vec::new();
    found.extend(smaller(now.batch, 1).map(|batch| Sizes { batch, ..now }));
    found.extend(smaller(now.kv_heads, 1).map(|kv_heads| heads(kv_heads, groups)));
    found.extend(smaller(groups, 1).map(|groups| heads(now.kv_heads, groups)));
    found.extend(smaller(now.seq_len, 1).map(|seq_len| Sizes { seq_len, ..now }));
    found.extend(smaller(now.num_sel, 0).map(|num_sel| Sizes { num_sel, ..now }));
    found.extend(smaller(now.dim.max(now.value_dim), 1).map(|dim| {
        let (dim, value_dim) = (dim.min(now.dim), dim.min(now.value_dim));
        Sizes { dim, value_dim, ..now }
    }));
    found.extend(smaller(now.dim, 1).map(|dim| Sizes { dim, ..now }));
    found.extend(smaller(now.value_dim, 1).map(|value_dim| Sizes { value_dim, ..now }));
    found.extend(smaller(now.block_size, 1).map(|block_size| Sizes { block_size, ..now }));
    if per_query_head {
        found.push(Sizes { sel_heads: now.kv_heads, ..now });
    }
    found
}

/// `least`, half, a quarter less, one less: each below `now`, none twice.
fn smaller(now: usize, least: usize) -> impl Iterator<Item = usize> {
    let mut sizes: Vec<usize> = [least, now / 2, now - now / 4, now.saturating_sub(1)]
        .into_iter()
        .filter(|&size| size < now && size >= least)
        .collect();
    sizes.dedup();
    sizes.into_iter()
}

/// Cases with one option less.
fn options(case: &Case) -> Vec<Case> {
    let mut found = Vec::new();
    let mut add = |holds: bool, change: &dyn Fn(&mut Case)| {
        if holds {
            let mut simpler = case.clone();
            change(&mut simpler);
            let overrides = std::mem::take(&mut simpler.overrides);
            simpler.overrides = overrides.into_iter().filter(|change| simpler.has(change.tensor)).collect();
            found.push(simpler);
        }
    };
    add(case.sliding_window.is_some(), &|case| (case.sliding_window, case.d_sliding) = (None, None));
    add(case.d_sliding.is_some(), &|case| case.d_sliding = None);
    add(case.d_lse.is_some(), &|case| case.d_lse = None);
    add(case.d_out.is_some(), &|case| case.d_out = None);
    add(case.sel_scale.is_some(), &|case| case.sel_scale = None);
    add(!case.include_block_causal, &|case| case.include_block_causal = true);
    add(case.mask != Mask::All {}, &|case| case.mask = Mask::All {});
    let window = case.sliding_window.unwrap_or(0);
    for window in smaller(window, 0) {
        add(true, &|case| case.sliding_window = Some(window));
    }
    found
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use crate::shrink_values::{complexity, rank, selection_rank};
    use crate::{Case, Dtype, Mask, Tensor};

    fn generated(count: u64, size: usize) -> impl Iterator<Item = Case> {
        (0..count).map(move |seed| Case::generate(size, seed))
    }

    fn numbers(case: &Case, tensor: Tensor) -> Option<ArrayD<f64>> {
        let shape = case.check().unwrap();
        match tensor {
            Tensor::Indices => Some(case.slots(&shape).unwrap().0.mapv(|block| block as f64).into_dyn()),
            Tensor::Mask => Some(case.slots(&shape).unwrap().1.mapv(|live| f64::from(u8::from(live))).into_dyn()),
            _ => case.fill(tensor, &shape).unwrap(),
        }
    }

    /// What each step must make smaller, most important first.
    fn measure(case: &Case) -> [u64; 5] {
        let sizes = case.sizes;
        let sizes = sizes.batch
            + sizes.q_heads
            + sizes.kv_heads
            + sizes.seq_len
            + sizes.dim
            + sizes.value_dim
            + sizes.block_size
            + sizes.num_sel
            + sizes.sel_heads;
        let present = [&case.sel_scale, &case.d_out, &case.d_lse, &case.d_sliding].map(Option::is_some);
        let chosen = [case.sliding_window.is_some(), !case.include_block_causal, case.mask != Mask::All {}];
        let options = present.iter().chain(&chosen).filter(|holds| **holds).count() + case.sliding_window.unwrap_or(0);
        let kinds = selection_rank(&case.selection) + case.values().map(|(_, values)| rank(values)).sum::<usize>();
        let total =
            |(tensor, numbers): (Tensor, ArrayD<f64>)| numbers.iter().map(|&v| complexity(tensor, v)).sum::<u64>();
        let tensors = Tensor::ALL.into_iter().filter_map(|tensor| Some((tensor, numbers(case, tensor)?)));
        [sizes as u64, options as u64, kinds as u64, tensors.map(total).sum(), case.overrides.len() as u64]
    }

    #[test]
    fn every_step_is_valid_and_strictly_simpler() {
        for case in generated(60, 4) {
            let before = measure(&case);
            for simpler in case.shrinks().step_by(7) {
                assert!(measure(&simpler) < before, "{}\nto\n{}", case.to_toml(), simpler.to_toml());
                simpler.materialize(Dtype::F32).unwrap_or_else(|error| panic!("{error}: {}", simpler.to_toml()));
            }
        }
    }

    #[test]
    fn a_case_that_always_fails_shrinks_to_one_token_of_zeros() {
        for mut case in generated(20, 50) {
            let mut steps = 0;
            while let Some(simpler) = case.shrinks().next() {
                case = simpler;
                steps += 1;
                assert!(steps < 10_000, "{}", case.to_toml());
            }
            assert_eq!((case.sizes.seq_len, case.sizes.q_heads, case.sizes.dim, case.sizes.block_size), (1, 1, 1, 1));
            let inputs = case.materialize(Dtype::F64).unwrap();
            assert!(inputs.q().iter().chain(inputs.k()).chain(inputs.v()).all(|&value| value == 0.0));
        }
    }

    #[test]
    fn what_remains_of_a_tensor_keeps_its_values_when_a_size_shrinks() {
        use crate::Values;
        let drawn_by_width = |values: &Values| matches!(values, Values::OneHot { .. });
        for case in generated(60, 4) {
            if !case.overrides.is_empty() || case.values().any(|(_, values)| drawn_by_width(values)) {
                continue;
            }
            for smaller in case.shrinks().filter(|simpler| simpler.sizes != case.sizes).take(20) {
                for (tensor, _) in case.values() {
                    let (before, after) = (numbers(&case, tensor).unwrap(), numbers(&smaller, tensor).unwrap());
                    for (index, value) in after.indexed_iter() {
                        assert_eq!(value.to_bits(), before[index.clone()].to_bits(), "{tensor:?} {index:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_case_of_given_tensors_shrinks_by_their_leading_part() {
        for case in generated(40, 2) {
            let given = Case::from_inputs(&case.materialize(Dtype::F32).unwrap());
            for smaller in given.shrinks().filter(|simpler| simpler.sizes != given.sizes).take(20) {
                let inputs = smaller.materialize(Dtype::F32).unwrap();
                assert_eq!(inputs.shape().sizes(), smaller.sizes);
            }
        }
    }

    #[test]
    fn an_overridden_element_does_not_hold_the_sizes() {
        let sizes = crate::Sizes {
            batch: 2,
            q_heads: 4,
            kv_heads: 2,
            seq_len: 40,
            dim: 16,
            value_dim: 16,
            block_size: 8,
            num_sel: 2,
            sel_heads: 2,
        };
        let mut case = Case::ordinary(sizes, 3);
        case.overrides.push(crate::Override::new(Tensor::K, &[1, 1, 39, 15], f64::NAN));
        let fails = |case: &Case| case.materialize(Dtype::F64).unwrap().k().iter().any(|value| value.is_nan());
        let mut runs = 0;
        while let Some(simpler) = case.shrinks().inspect(|_| runs += 1).find(fails) {
            case = simpler;
        }
        assert_eq!((case.sizes.batch, case.sizes.kv_heads, case.sizes.seq_len, case.sizes.dim), (1, 1, 1, 1));
        assert!(runs < 300, "{runs}");
    }

    #[test]
    fn a_failure_of_many_elements_is_minimised_in_few_runs() {
        let sizes = crate::Sizes {
            batch: 1,
            q_heads: 2,
            kv_heads: 1,
            seq_len: 12,
            dim: 8,
            value_dim: 8,
            block_size: 4,
            num_sel: 2,
            sel_heads: 1,
        };
        let mut case = Case::ordinary(sizes, 3);
        // The product of one early and one late element: sizes and distributions alone cannot reach it.
        let fails = |case: &Case| {
            let inputs = case.materialize(Dtype::F64).unwrap();
            let at = |index| inputs.k().get(index).copied().unwrap_or(0.0);
            at([0, 0, 1, 2]) * at([0, 0, 10, 6]) < -0.01
        };
        while !fails(&case) {
            case.seed += 1;
        }
        let mut runs = 0;
        while let Some(simpler) = case.shrinks().inspect(|_| runs += 1).find(fails) {
            case = simpler;
        }
        let inputs = case.materialize(Dtype::F64).unwrap();
        assert_eq!(inputs.k().iter().filter(|value| **value != 0.0).count(), 2, "{}", case.to_toml());
        assert!(runs < 2000, "{runs}");
    }

    #[test]
    fn elements_go_to_zero_one_and_powers_of_two() {
        let mut case = generated(1, 1).next().unwrap();
        let keeps = |case: &Case| {
            let inputs = case.materialize(Dtype::F64).unwrap();
            inputs.q().iter().any(|&value| value.abs() >= 1.0)
        };
        case.q = crate::Values::normal();
        case.sizes = crate::Sizes { seq_len: 6, dim: 8, q_heads: case.sizes.kv_heads, ..case.sizes };
        case.sizes.sel_heads = case.sizes.kv_heads;
        case.overrides.clear();
        assert!(keeps(&case));
        while let Some(simpler) = case.shrinks().find(keeps) {
            case = simpler;
        }
        let inputs = case.materialize(Dtype::F64).unwrap();
        assert!(inputs.q().iter().all(|value| [0.0, 1.0].contains(value)), "{}", case.to_toml());
    }
}
