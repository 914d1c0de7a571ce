use ndarray::Array4;
use nsa_corpus::*;
use std::time::Instant;
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let (b, n, hq, hkv, d, nb, sel) = (a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
    let mut s = 1u64;
    let mut r = move || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((s >> 33) as f64 / 2f64.powi(31)) * 4.0 - 2.0
    };
    let mut t = |h, w| Array4::from_shape_simple_fn((b, h, n, w), &mut r);
    let (q, k, v, g) = (t(hq, d), t(hkv, d), t(hkv, d), t(hq, d));
    let w = n.div_ceil(nb);
    let mut x = 7u64;
    let mut idx = move |_| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((x >> 33) as usize % w) as i64
    };
    let indices = Array4::from_shape_fn((b, hkv, n, sel), &mut idx);
    let mask = Array4::from_shape_fn((b, hkv, n, sel), |(_, _, i, s)| (i + s) % 2 == 0 || a.len() > 7);
    let inputs = Inputs::new(InputParts {
        block_size: nb,
        include_block_causal: true,
        sliding_window: None,
        element: Element::F32,
        q,
        k,
        v,
        sel_scale: Some(Array4::ones((b, hkv, n, sel))),
        indices,
        mask,
        cotangents: Cotangents { d_out: Some(g), ..Default::default() },
    })
    .unwrap();
    for _ in 0..3 {
        let t0 = Instant::now();
        let f = oracle::forward(&inputs, None);
        let t1 = Instant::now();
        let o = oracle::attend(&inputs);
        let t2 = Instant::now();
        let ar = Arithmetic::f32();
        let fb = oracle::forward(&inputs, Some(&ar));
        let t3 = Instant::now();
        let bb = oracle::backward(&inputs, &fb.outputs, Some(&ar));
        let t4 = Instant::now();
        println!(
            "forward {:?} attend {:?} forward+bounds {:?} backward+bounds {:?}",
            t1 - t0,
            t2 - t1,
            t3 - t2,
            t4 - t3
        );
        let _ = (f, o, bb);
    }
}
use nsa_reference::oracle;
