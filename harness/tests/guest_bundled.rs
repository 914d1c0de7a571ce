//! The bundled guests that need no GPU, judged like any candidate. Without what they need they are skipped, visibly.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nsa_corpus::{Dtype, entries};
use nsa_harness::candidate::Candidate;
use nsa_harness::candidate::guest::{GuestCandidate, Limits};
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::run::run_entry;

/// The guest, or a line that says why it is left out. `.python` is where a checkout may keep its Python packages.
fn guest(name: &str, required_features: &str) -> Option<GuestCandidate> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.python");
    let python = std::env::var("NSA_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(&python);
    if packages.is_dir() {
        command.env("PYTHONPATH", &packages);
    }
    if !command.args(["-c", required_features]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: {name}: {python} cannot do `{required_features}`");
        return None;
    }
    let limits =
        Limits { case: Duration::from_secs(60), start: Duration::from_secs(60), memory_mib: Some(8192), processes: 1 };
    Some(GuestCandidate::start(name, limits).unwrap())
}

/// Runs every entry of at most `values` query values in `element`; the number of those that passed.
fn passes(guest: &GuestCandidate, dtype: Dtype, values: usize) -> usize {
    let small = entries().iter().filter(|entry| {
        let sizes = entry.case.sizes;
        sizes.batch * sizes.q_heads * sizes.seq_len * sizes.dim <= values
    });
    let reports: Vec<_> = small.map(|entry| run_entry(entry, dtype, guest).unwrap()).collect();
    for report in &reports {
        assert!(
            matches!(report.verdict, Verdict::Pass | Verdict::Skip(_) | Verdict::Inconclusive(_)),
            "{}: {}",
            report.name,
            report.verdict
        );
    }
    reports.iter().filter(|report| report.verdict == Verdict::Pass).count()
}

#[test]
fn the_plain_numpy_guest_passes_and_a_small_case_costs_little() {
    let Some(guest) = guest("guest:numpy_plain", "import numpy, safetensors") else { return };
    assert_eq!(guest.declared_name(), "numpy_plain");
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let passed = passes(&guest, dtype, 20_000);
        assert!(passed > 50, "{passed} passed in {dtype}");
    }
    let entry = entries().iter().find(|entry| entry.name == "edges/seq_1").unwrap();
    let inputs = entry.case.materialize(Dtype::F32).unwrap();
    let start = Instant::now();
    for _ in 0..200 {
        guest.run(&inputs).unwrap();
    }
    println!("a small case takes {:.3} ms through the protocol", start.elapsed().as_secs_f64() * 1e3 / 200.0);
}

#[test]
fn the_c_example_passes() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("plain.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/c/plain.c");
    let built =
        Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-lm").output();
    match built {
        Err(error) => return println!("skipped: the C example: cc: {error}"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
    let name = format!("guest:{}", library.display());
    let Some(guest) = guest(&name, "import numpy, safetensors") else { return };
    let passed = passes(&guest, Dtype::F16, 20_000);
    assert!(passed > 50, "{passed} passed");
}

#[test]
fn the_torch_guest_passes() {
    let Some(guest) = guest("guest:torch_regular_attend", "import torch, numpy, safetensors") else { return };
    let passed = passes(&guest, Dtype::F32, 20_000);
    assert!(passed > 50, "{passed} passed");
}

#[test]
fn the_example_of_the_documentation_is_the_one_that_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let example = read("harness/guests/diagonal_only.py");
    assert!(example.lines().count() <= 20);
    for page in ["docs/guest-protocol.md", "README.md"] {
        assert!(read(page).contains(&format!("```python\n{example}```")), "{page}");
    }
    let Some(guest) = guest("guest:diagonal_only", "import torch, numpy, safetensors") else { return };
    let passed = passes(&guest, Dtype::F32, 20_000);
    assert!(passed > 3, "{passed} passed");
}
