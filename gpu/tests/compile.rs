//! Every kernel, and every mutant of one, is compiled for every architecture that the kernels are meant for: no GPU is
//! needed, only NVRTC (`pip install --target .cuda nvidia-cuda-nvrtc`). Without it these tests say so and pass.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nsa_corpus::Expected;
use nsa_gpu::variant::{Program, catalogue, checking_programs};
use nsa_gpu::{Compiler, Cubin, Error, Mutant, Workspace, mutants, source};

const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_90a", "sm_100", "sm_120"];

/// NVRTC, or a line that says what this test would have done.
fn compiler(skipped: &str) -> Option<&'static Compiler> {
    Compiler::find().inspect_err(|error| eprintln!("skipped: {skipped}: {error}")).ok()
}

/// Everything that the tests compile.
fn jobs() -> Vec<(Program, &'static str, Option<Mutant>)> {
    let programs = catalogue().into_iter().map(|program| (program, None));
    let changed = mutants().unwrap().into_iter().filter_map(|mutant| Some((program_with(&mutant)?, Some(mutant))));
    let jobs = programs.chain(changed);
    jobs.flat_map(|(program, mutant)| ARCHITECTURES.map(|arch| (program.clone(), arch, mutant.clone()))).collect()
}

/// Fills the compiler's cache by as many processes as there are processors: within one process NVRTC compiles one thing at a
/// time. What fails to compile is told by the tests, which find the rest in the cache.
fn fill_cache(compiler: &Compiler) {
    static FILLED: OnceLock<()> = OnceLock::new();
    FILLED.get_or_init(|| {
        let shares = std::thread::available_parallelism().map_or(1, usize::from);
        let child = |share: usize| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "a_share_of_the_cache", "--ignored"]).env(SHARE, format!("{share}/{shares}"));
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        };
        let children: Vec<_> = (1..shares).filter_map(|share| child(share).ok()).collect();
        compile_share(compiler, 0, shares);
        children.into_iter().for_each(|mut child| drop(child.wait()));
    });
}

/// Which share a child compiles, as `share/shares`.
const SHARE: &str = "NSA_COMPILE_SHARE";

fn compile_share(compiler: &Compiler, share: usize, shares: usize) {
    for (program, arch, mutant) in jobs().into_iter().skip(share).step_by(shares) {
        let _ = compiler.compile(&program, arch, mutant.as_ref());
    }
}

#[test]
#[ignore = "a helper process of the others"]
fn a_share_of_the_cache() {
    let Some((share, shares)) = std::env::var(SHARE).ok().and_then(|text| {
        let (share, shares) = text.split_once('/')?;
        Some((share.parse().ok()?, shares.parse().ok()?))
    }) else {
        return;
    };
    compiler("a share of the cache").into_iter().for_each(|compiler| compile_share(compiler, share, shares));
}

/// One program for one architecture.
type Compiled = (Program, &'static str, Result<Cubin, Error>);

/// Every program for every architecture, compiled once for all tests.
fn compiled(compiler: &Compiler) -> &'static [Compiled] {
    static COMPILED: OnceLock<Vec<Compiled>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        fill_cache(compiler);
        let programs = catalogue().into_iter();
        let jobs = programs.flat_map(|program| ARCHITECTURES.map(|arch| (program.clone(), arch)));
        jobs.map(|(program, arch)| {
            let cubin = compiler.compile(&program, arch, None);
            (program, arch, cubin)
        })
        .collect()
    })
}

#[test]
fn every_program_compiles_for_every_architecture() {
    let Some(compiler) = compiler("compiling every program") else { return };
    let failed =
        |(program, arch, cubin): &Compiled| Some(format!("{} {arch}: {}", program.label(), cubin.as_ref().err()?));
    // All failures at once, each with the compiler's log.
    let failures: Vec<String> = compiled(compiler).iter().filter_map(failed).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn what_checks_the_kernels_compiles_and_every_workspace_is_set_apart() {
    let programs = checking_programs();
    for workspace in Workspace::ALL {
        assert!(programs.iter().any(|program| program.apart == Some(workspace)), "{workspace:?}");
    }
    let Some(compiler) = compiler("compiling what checks the kernels") else { return };
    for program in programs {
        // `probe` asks for the cluster on newer ones alone; the rest is one text for all.
        for arch in if program.apart.is_none() { ["sm_80", "sm_90a"].as_slice() } else { &["sm_90a"] } {
            compiler
                .compile(&program, arch, None)
                .unwrap_or_else(|error| panic!("{} {arch}: {error}", program.label()));
        }
    }
}

/// The smallest program that `mutant` changes.
fn program_with(mutant: &Mutant) -> Option<Program> {
    let changed = |program: &Program| source::flatten(program, None) != source::flatten(program, Some(mutant));
    let size = |program: &Program| (program.kernel.ends_with("_tensor"), program.defines.clone());
    catalogue().into_iter().filter(changed).min_by_key(size)
}

#[test]
fn every_mutant_changes_a_kernel_and_compiles_as_declared() {
    let Some(compiler) = compiler("compiling every mutant") else { return };
    fill_cache(compiler);
    for mutant in mutants().unwrap() {
        let program = program_with(&mutant).unwrap_or_else(|| panic!("{} changes no kernel", mutant.name));
        for arch in ARCHITECTURES {
            let failure = compiler.compile(&program, arch, Some(&mutant)).err();
            assert_eq!(failure.is_some(), mutant.expect == Expected::Unviable, "{} {arch}: {failure:?}", mutant.name);
        }
    }
}

#[test]
fn registers_spills_and_shared_memory_are_known() {
    let Some(compiler) = compiler("the snapshot of registers") else { return };
    if compiler.version() != (13, 0) {
        eprintln!("skipped: the snapshot of registers is NVRTC 13.0's, this is {:?}", compiler.version());
        return;
    }
    for arch in ARCHITECTURES {
        let lines = compiled(compiler)
            .iter()
            .filter(|(_, of, _)| *of == arch)
            .map(|(program, _, cubin)| format!("{}: {}", program.label(), cubin.as_ref().unwrap().resources()));
        insta::assert_snapshot!(format!("resources_{arch}"), lines.collect::<Vec<_>>().join("\n"));
    }
}
