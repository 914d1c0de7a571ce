//! Every kernel, and every mutant of one, is compiled for every architecture that the kernels are meant for: no GPU is
//! needed, only NVRTC (`pip install --target .cuda nvidia-cuda-nvrtc`). Without it these tests say so and pass.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nsa_corpus::{Dtype, Expected, Shape, Sizes};
use nsa_gpu::compile::{Compiler, Cubin, source};
use nsa_gpu::plan::{Launch, Plan, Program, Workspace, catalogue};
use nsa_gpu::{Error, Mutant, Problem, Rung, Variant, mutants};

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

/// Every launch of a problem on a rung, with `workspace` set apart.
fn launches(rung: Rung, workspace: Option<Workspace>) -> Vec<Launch> {
    let (batch, q_heads, kv_heads, seq_len, num_sel, sel_heads) = (2, 16, 2, 512, 4, 2);
    let (dim, value_dim, block_size) = (64, 64, 32);
    let sizes = Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads };
    let dtype = if rung == Rung::Plain { Dtype::F32 } else { Dtype::Bf16 };
    let problem = Problem {
        far: workspace,
        variant: Some(Variant::uniform(rung)),
        ..Problem::new(&Shape::new(sizes).unwrap(), dtype)
    };
    let plan = Plan::new(&problem, "sm_90a").unwrap();
    [plan.forward(), plan.backward()].concat()
}

#[test]
fn what_checks_the_kernels_compiles_and_so_do_kernels_whose_workspaces_are_set_apart() {
    let Some(compiler) = compiler("compiling what checks the kernels") else { return };
    let compile = |program: &Program, arch| {
        compiler.compile(program, arch, None).unwrap_or_else(|error| panic!("{} {arch}: {error}", program.label()))
    };
    for kernel in ["gate", "poison", "probe"] {
        // `probe` asks for the cluster on newer ones alone.
        for arch in ["sm_80", "sm_90a"] {
            compile(&Program::check(kernel), arch);
        }
    }
    for (rung, workspace) in Rung::ALL.into_iter().flat_map(|rung| Workspace::ALL.map(|workspace| (rung, workspace))) {
        let far = launches(rung, Some(workspace)).into_iter().filter(|launch| launch.program.far.is_some());
        for program in far.map(|launch| launch.program) {
            let dense = Program { far: None, ..program.clone() };
            assert_ne!(source::flatten(&program, None), source::flatten(&dense, None), "{}", program.label());
            compile(&program, "sm_90a");
        }
    }
}

#[test]
fn kernels_take_as_much_shared_memory_as_was_planned() {
    let Some(compiler) = compiler("comparing planned shared memory") else { return };
    for launch in Rung::ALL.into_iter().flat_map(|rung| launches(rung, None)) {
        let resources = compiler.compile(&launch.program, "sm_90a", None).unwrap().resources();
        let used = resources.split(", ").find_map(|part| part.split(" bytes smem").next()?.parse::<u32>().ok());
        assert_eq!(used.unwrap_or(0), launch.extent.static_shared, "{}: {resources}", launch.program.label());
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
