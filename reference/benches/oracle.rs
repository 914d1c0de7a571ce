//! How long the oracle takes, and how its cost grows with the sequence: `cargo bench -p nsa-reference`.
//!
//! Times are for reading beside each other, from one run; nothing is asserted.

use std::time::{Duration, Instant};

use nsa_corpus::{Arithmetic, Case, Dtype, Inputs, Mask, Selection, Sizes, Values};
use nsa_reference::{oracle, tiled};

/// The median of `repeats` runs.
fn median(repeats: usize, mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..repeats)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn inputs(sizes: Sizes, selection: Selection, mask: Mask, dtype: Dtype) -> Inputs {
    let case = Case { selection, mask, sel_scale: Some(Values::ones()), ..Case::ordinary(sizes, 1) };
    case.materialize(dtype).expect("a valid case")
}

fn report(name: &str, inputs: &Inputs, repeats: usize) {
    let arithmetic = Arithmetic::f32();
    let forward = median(repeats, || drop(oracle::forward(inputs, None)));
    let both = median(repeats, || drop(oracle::attend(inputs)));
    let saved = oracle::forward(inputs, None).outputs;
    let bounds = median(repeats, || {
        drop(oracle::forward(inputs, Some(&arithmetic)));
        drop(oracle::backward(inputs, &saved, Some(&arithmetic)));
    });
    let tiled = median(repeats, || drop(tiled::attend(inputs)));
    println!(
        "{name:<34} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        forward.as_secs_f64() * 1e3,
        both.as_secs_f64() * 1e3,
        bounds.as_secs_f64() * 1e3,
        tiled.as_secs_f64() * 1e3
    );
}

fn main() {
    println!("{} threads, milliseconds, medians", rayon::current_num_threads());
    println!("{:<34} {:>9} {:>9} {:>9} {:>9}", "shape", "forward", "+backward", "budgets", "tiled f32");
    let seed = Sizes {
        batch: 4,
        q_heads: 4,
        kv_heads: 2,
        seq_len: 507,
        dim: 64,
        value_dim: 64,
        block_size: 32,
        num_sel: 6,
        sel_heads: 2,
    };
    let mock = inputs(seed, Selection::ZeroOrOne {}, Mask::Random {}, Dtype::F32);
    report("b4 n507 hq4 hkv2 d64 N32 sel6", &mock, 9);
    let live = inputs(seed, Selection::ZeroOrOne {}, Mask::All {}, Dtype::F32);
    report("the same, every slot live", &live, 9);
    let wide = Sizes {
        batch: 1,
        q_heads: 16,
        kv_heads: 1,
        seq_len: 4096,
        dim: 128,
        value_dim: 128,
        block_size: 64,
        num_sel: 16,
        sel_heads: 1,
    };
    report("b1 n4096 hq16 hkv1 d128 N64 sel16", &inputs(wide, Selection::Any {}, Mask::All {}, Dtype::F32), 1);
    for seq_len in [4096, 8192, 16384, 32768] {
        let sizes = Sizes {
            batch: 1,
            q_heads: 2,
            kv_heads: 1,
            seq_len,
            dim: 64,
            value_dim: 64,
            block_size: 64,
            num_sel: 8,
            sel_heads: 1,
        };
        let inputs = inputs(sizes, Selection::Any {}, Mask::All {}, Dtype::F32);
        report(&format!("b1 n{seq_len} hq2 hkv1 d64 N64 sel8"), &inputs, 1);
    }
}
