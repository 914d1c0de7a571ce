//! A first look at a GPU, before any harness: small generated problems on every rung against a brute force of its own,
//! then timings.
//!
//! `cargo build --release --example selftest`; the binary runs as carried, with no file beside it.
//! `selftest` does everything; `selftest check` only the problems; `selftest bench` only the timings.

use std::time::Instant;

use ndarray::{Array3, Array4};
use nsa_corpus::{Cotangents, Element, Field, InputParts, Inputs, Outputs, Sizes};
use nsa_gpu::{Device, Layout, Options, Rung, Safety, Variant, availability, bench, run};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let what = std::env::args().nth(1).unwrap_or_else(|| "all".to_owned());
    match availability() {
        Ok(info) => println!("{} {} driver {:?} NVRTC {:?}", info.name, info.arch(), info.driver, info.compiler),
        Err(error) => return Err(error.into()),
    }
    let device = Device::open(0)?;
    if what != "bench" {
        let failures = check_problems(&device);
        println!("{failures} failures");
        if failures > 0 && what != "all" {
            return Err(format!("{failures} failures").into());
        }
    }
    if what != "check" {
        bench_shapes(&device)?;
    }
    Ok(())
}

/// A small frozen generator (xorshift), good enough for a smoke test.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Bell-shaped, of variance 1.
    fn bell(&mut self) -> f64 {
        (0..4).map(|_| self.unit() - 0.5).sum::<f64>() * 3f64.sqrt()
    }

    fn below(&mut self, bound: usize) -> i64 {
        (self.unit() * bound as f64) as i64
    }
}

/// A problem of the smoke test.
#[derive(Clone, Copy)]
struct Problem {
    sizes: Sizes,
    window: Option<usize>,
    diagonal: bool,
    sel_scale: bool,
    masked: bool,
}

fn sizes(numbers: [usize; 9]) -> Sizes {
    let [batch, q_heads, kv_heads, sel_heads, seq_len, dim, value_dim, block_size, num_sel] = numbers;
    Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads }
}

fn problems() -> Vec<Problem> {
    let plain = Problem { sizes: sizes([1; 9]), window: None, diagonal: true, sel_scale: false, masked: false };
    let all = Problem { window: Some(9), sel_scale: true, masked: true, ..plain };
    vec![
        Problem { sizes: sizes([1, 1, 1, 1, 1, 8, 8, 1, 1]), ..plain },
        Problem { sizes: sizes([1, 2, 1, 1, 40, 7, 5, 16, 0]), ..plain },
        Problem { sizes: sizes([2, 3, 1, 1, 61, 40, 24, 13, 3]), ..all },
        Problem { sizes: sizes([1, 4, 2, 4, 97, 64, 64, 32, 2]), ..all },
        Problem { sizes: sizes([1, 4, 2, 2, 90, 16, 8, 8, 3]), diagonal: false, ..all },
        Problem { sizes: sizes([1, 32, 1, 1, 70, 128, 128, 64, 2]), window: Some(100), ..all },
        Problem { sizes: sizes([1, 20, 1, 1, 77, 192, 128, 24, 2]), ..all },
        Problem { sizes: sizes([1, 1, 1, 1, 300, 256, 256, 256, 1]), window: Some(64), ..all },
        Problem { sizes: sizes([2, 4, 2, 2, 507, 64, 64, 32, 6]), window: None, ..all },
    ]
}

fn inputs(problem: &Problem, element: Element) -> Result<Inputs, Failure> {
    let Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads } = problem.sizes;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let blocks = seq_len.div_ceil(block_size);
    let mut bell = |heads, width| Array4::from_shape_simple_fn((batch, heads, seq_len, width), || random.bell());
    let (q, k, v) = (bell(q_heads, dim), bell(kv_heads, dim), bell(kv_heads, value_dim));
    let (d_out, d_sliding) = (bell(q_heads, value_dim), bell(q_heads, value_dim));
    let d_lse = Array3::from_shape_simple_fn((batch, q_heads, seq_len), || random.bell());
    let slots = (batch, sel_heads, seq_len, num_sel);
    // Block 0 often: its visits are the ones that are cut into segments.
    let mut block = || if random.unit() < 0.3 { 0 } else { random.below(blocks) };
    let indices = Array4::from_shape_simple_fn(slots, &mut block);
    let mask = Array4::from_shape_simple_fn(slots, || !problem.masked || random.unit() < 0.8);
    let sel_scale = Array4::from_shape_simple_fn(slots, || random.unit() * 2.0 - 0.5);
    Ok(Inputs::new(InputParts {
        block_size,
        include_block_causal: problem.diagonal,
        sliding_window: problem.window,
        element,
        q,
        k,
        v,
        indices,
        mask,
        sel_scale: problem.sel_scale.then_some(sel_scale),
        cotangents: Cotangents { d_out: Some(d_out), d_lse: Some(d_lse), d_sliding: problem.window.map(|_| d_sliding) },
    })?)
}

/// Runs every problem on every rung that takes it, in both layouts, twice; returns how many went wrong.
fn check_problems(device: &Device) -> usize {
    let mut failures = 0;
    for problem in problems() {
        for element in [Element::F32, Element::F16, Element::Bf16] {
            let inputs = inputs(&problem, element).expect("the problems are well formed");
            let expected = brute_force(&inputs);
            for rung in Rung::ALL {
                let variant = Variant::uniform(rung);
                if variant.supports(inputs.shape(), element).is_err() {
                    continue;
                }
                for layout in [Layout::HeadMajor, Layout::TokenMajor] {
                    let options = Options { variant: Some(variant), layout, safety: Safety::CHECKED };
                    let result = check(device, &inputs, &expected, &options);
                    println!(
                        "{rung} {element} {layout:?} {:?}: {}",
                        problem.sizes,
                        result.as_ref().unwrap_or_else(|e| e)
                    );
                    failures += usize::from(result.is_err());
                }
            }
        }
    }
    failures
}

/// The largest error of each field relative to the field's largest value, or what went wrong.
fn check(device: &Device, inputs: &Inputs, expected: &Outputs, options: &Options) -> Result<String, String> {
    let outputs = run(device, inputs, options).map_err(|error| format!("FAILED {error}"))?;
    let again = run(device, inputs, options).map_err(|error| format!("FAILED {error}"))?;
    let tolerance = match inputs.element() {
        Element::F16 => 4e-3,
        Element::Bf16 => 3e-2,
        _ => 3e-5,
    };
    let mut line = String::new();
    let mut failed = false;
    for field in Field::ALL.into_iter().filter(|field| field.asked_by(inputs)) {
        let (Some(found), Some(second)) = (outputs.get(field), again.get(field)) else {
            return Err(format!("FAILED {field} is missing"));
        };
        let wanted = expected.get(field).expect("the brute force computes every field");
        let largest =
            wanted.iter().filter(|value| value.is_finite()).fold(0.05, |most: f64, value| most.max(value.abs()));
        let error =
            |(found, wanted): (&f64, &f64)| if found == wanted { 0.0 } else { (found - wanted).abs() / largest };
        let errors = found.iter().zip(wanted).map(error);
        let worst = errors.fold(0.0, |worst: f64, error| if worst.is_nan() || error <= worst { worst } else { error });
        let same = found.iter().zip(second).all(|(one, other)| one.to_bits() == other.to_bits());
        failed |= worst.is_nan() || worst > tolerance || !same;
        line += &format!("{field} {worst:.1e}{} ", if same { "" } else { " NOT THE SAME TWICE" });
    }
    if failed { Err(format!("FAILED {line}")) } else { Ok(line) }
}

/// The contract, written down directly: every query's terms, one by one, in f64.
fn brute_force(inputs: &Inputs) -> Outputs {
    let mut outputs = Outputs::filled(inputs, 0.0);
    let shape = *inputs.shape();
    for b in 0..shape.batch() {
        for head in 0..shape.q_heads() {
            for i in 0..shape.seq_len() {
                selected_row(inputs, &mut outputs, b, head, i);
                if let Some(window) = inputs.sliding_window() {
                    let terms =
                        (i.saturating_sub(window)..=i).map(|key| Term { key, factor: 1.0, slot: None }).collect();
                    let d_out = inputs.cotangents().d_sliding.as_ref();
                    row(inputs, &mut outputs, [b, head, i], terms, d_out, 0.0, [Field::SlidingOut, Field::SlidingLse]);
                }
            }
        }
    }
    outputs
}

struct Term {
    key: usize,
    factor: f64,
    slot: Option<usize>,
}

fn selected_row(inputs: &Inputs, outputs: &mut Outputs, b: usize, head: usize, i: usize) {
    let shape = inputs.shape();
    let (size, sel_head) = (shape.block_size(), head / shape.sel_groups());
    let mut terms = Vec::new();
    if inputs.include_block_causal() {
        terms.extend((i / size * size..=i).map(|key| Term { key, factor: 1.0, slot: None }));
    }
    for s in (0..shape.num_sel()).filter(|s| inputs.mask()[[b, sel_head, i, *s]]) {
        let factor = inputs.sel_scale().map_or(1.0, |scale| scale[[b, sel_head, i, s]]);
        let first = inputs.indices()[[b, sel_head, i, s]] as usize * size;
        terms.extend((first..first + size).map(|key| Term { key, factor, slot: Some(s) }));
    }
    let cotangents = inputs.cotangents();
    let d_lse = cotangents.d_lse.as_ref().map_or(0.0, |tensor| tensor[[b, head, i]]);
    row(inputs, outputs, [b, head, i], terms, cotangents.d_out.as_ref(), d_lse, [Field::Out, Field::Lse]);
}

fn row(
    inputs: &Inputs,
    outputs: &mut Outputs,
    [b, head, i]: [usize; 3],
    terms: Vec<Term>,
    d_out: Option<&Array4<f64>>,
    d_lse: f64,
    [out_field, lse_field]: [Field; 2],
) {
    let shape = inputs.shape();
    let (kv, sel, n) = (head / shape.groups(), head / shape.sel_groups(), shape.seq_len());
    let (dim, value_dim, scale) = (shape.dim(), shape.value_dim(), shape.scale());
    let (q, k, v) = (inputs.q(), inputs.k(), inputs.v());
    let product = |key: usize| (0..dim).map(|d| q[[b, head, i, d]] * k[[b, kv, key, d]]).sum::<f64>();
    let products: Vec<f64> = terms.iter().map(|term| if term.key < n { product(term.key) } else { 0.0 }).collect();
    let scores: Vec<f64> = products.iter().zip(&terms).map(|(x, term)| x * term.factor * scale).collect();
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
    let lse = if terms.is_empty() { f64::NEG_INFINITY } else { highest + sum.ln() };
    outputs.get_mut(lse_field).unwrap()[[b, head, i]] = lse;
    let mut out = vec![0.0; value_dim];
    for (term, score) in terms.iter().zip(&scores).filter(|(term, _)| term.key < n) {
        (0..value_dim).for_each(|d| out[d] += (score - lse).exp() * v[[b, kv, term.key, d]]);
    }
    (0..value_dim).for_each(|d| outputs.get_mut(out_field).unwrap()[[b, head, i, d]] = out[d]);
    let Some(gradient) = d_out else { return };
    let delta = (0..value_dim).map(|d| gradient[[b, head, i, d]] * out[d]).sum::<f64>() - d_lse;
    for ((term, score), x) in terms.iter().zip(&scores).zip(&products) {
        let weight = (score - lse).exp();
        let inside = term.key < n;
        let value = |d| if inside { v[[b, kv, term.key, d]] } else { 0.0 };
        let d_weight: f64 = (0..value_dim).map(|d| gradient[[b, head, i, d]] * value(d)).sum();
        let d_score = weight * (d_weight - delta);
        if let (Some(s), Some(slopes)) = (term.slot, outputs.get_mut(Field::DselScale)) {
            slopes[[b, sel, i, s]] += scale * d_score * x;
        }
        for d in (0..dim).filter(|_| inside) {
            let slope = scale * term.factor * d_score;
            outputs.get_mut(Field::Dq).unwrap()[[b, head, i, d]] += slope * k[[b, kv, term.key, d]];
            outputs.get_mut(Field::Dk).unwrap()[[b, kv, term.key, d]] += slope * q[[b, head, i, d]];
        }
        for d in (0..value_dim).filter(|_| inside) {
            outputs.get_mut(Field::Dv).unwrap()[[b, kv, term.key, d]] += weight * gradient[[b, head, i, d]];
        }
    }
}

/// {own (the diagonal), previous, first} and random past blocks, as the timings of the field have it.
fn causal_inputs(sizes: Sizes, element: Element) -> Result<Inputs, Failure> {
    let Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads } = sizes;
    let mut random = Random(42);
    let slots = (batch, sel_heads, seq_len, num_sel);
    let (mut indices, mut mask) = (Array4::zeros(slots), Array4::from_elem(slots, false));
    for ((b, h, i, s), index) in indices.indexed_iter_mut() {
        let own = i / block_size;
        *index = match s {
            0 => 0,
            1 => own as i64 - 1,
            _ => random.below(own.max(1)),
        };
        mask[[b, h, i, s]] = own > 0 && (s != 1 || own > 1);
        *index = (*index).max(0);
    }
    let mut bell =
        |heads, width| Array4::from_shape_simple_fn((batch, heads, seq_len, width), || random.unit() * 2.0 - 1.0);
    Ok(Inputs::new(InputParts {
        block_size,
        include_block_causal: true,
        sliding_window: None,
        element,
        q: bell(q_heads, dim),
        k: bell(kv_heads, dim),
        v: bell(kv_heads, value_dim),
        indices,
        mask,
        sel_scale: None,
        cotangents: Cotangents { d_out: Some(bell(q_heads, value_dim)), ..Cotangents::default() },
    })?)
}

fn bench_shapes(device: &Device) -> Result<(), Failure> {
    let shapes = [
        ("seed", sizes([4, 4, 2, 2, 507, 64, 64, 32, 6])),
        ("n8192", sizes([1, 64, 4, 4, 8192, 128, 128, 64, 15])),
        ("n32768", sizes([1, 64, 4, 4, 32768, 128, 128, 64, 15])),
    ];
    for (name, sizes) in shapes {
        for element in [Element::F16, Element::Bf16, Element::F32] {
            if element != Element::Bf16 && sizes.seq_len > 10_000 {
                continue;
            }
            let start = Instant::now();
            let inputs = causal_inputs(sizes, element)?;
            let prepared = start.elapsed().as_secs_f64();
            for rung in Rung::ALL {
                let variant = Variant::uniform(rung);
                // The plain rung is for f32 there; it takes seconds.
                let slow = rung == Rung::Plain && sizes.seq_len > 1000 && element != Element::F32;
                if variant.supports(inputs.shape(), element).is_err() || slow {
                    continue;
                }
                let options = Options { variant: Some(variant), safety: Safety::NONE, ..Options::default() };
                let repetitions = if rung == Rung::Plain { 5 } else { 21 };
                let measured = bench(device, &inputs, &options, repetitions)?;
                let both = measured.forward_and_backward.expect("a cotangent is given");
                let finite = measured.outputs.iter().all(|(_, tensor)| tensor.iter().all(|value| value.is_finite()));
                println!(
                    "{name} {element} {rung}: forward {:.4} ms (min {:.4}), forward + backward {:.4} ms (min {:.4}); \
                     outputs finite: {finite}; host {prepared:.1} s, in all {:.1} s",
                    measured.forward.median,
                    measured.forward.min,
                    both.median,
                    both.min,
                    start.elapsed().as_secs_f64()
                );
            }
        }
    }
    Ok(())
}
