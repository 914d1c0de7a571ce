//! Plans are held to the kernels' own text: the names, the order and the constness of parameters, and the threads of a CTA.

use std::collections::BTreeSet;

use nsa_corpus::{Dtype, Shape, Sizes};
use nsa_gpu::compile::{FILES, file};
use nsa_gpu::plan::{Access, Launch, Plan, Value};
use nsa_gpu::{Problem, Rung, Variant};

/// Every launch of a problem with every tensor, on every rung, at two sizes.
fn launches() -> Vec<Launch> {
    let mut launches = Vec::new();
    for (rung, dim) in Rung::ALL.into_iter().flat_map(|rung| [(rung, 64), (rung, 160)]) {
        let (batch, q_heads, kv_heads, seq_len, num_sel, sel_heads) = (2, 16, 2, 512, 4, 2);
        let block_size = dim / 2;
        let sizes = Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim: dim, block_size, num_sel, sel_heads };
        let problem = Problem {
            sliding_window: Some(3),
            sel_scale: true,
            d_lse: true,
            d_sliding: true,
            variant: Some(Variant::uniform(rung)),
            ..Problem::new(&Shape::new(sizes).unwrap(), if rung == Rung::Plain { Dtype::F32 } else { Dtype::F16 })
        };
        let plan = Plan::new(&problem, "sm_90a").unwrap();
        launches.extend([plan.forward(), plan.backward()].concat());
    }
    launches
}

fn kernel_text(launch: &Launch) -> &'static str {
    file(&format!("{}.cu", launch.program.kernel)).unwrap().text
}

/// The parameters that a kernel's text declares: name, and whether it is written through.
fn declared(launch: &Launch) -> Vec<(String, bool)> {
    let kernel = launch.program.kernel;
    let list = kernel_text(launch).split(&format!("\n{kernel}(")).nth(1).unwrap().split(')').next().unwrap();
    let parameter = |text: &str| {
        let name = text.split_whitespace().last().unwrap().to_owned();
        (name, text.contains('*') && !text.trim_start().starts_with("const "))
    };
    list.split(',').map(parameter).collect()
}

#[test]
fn arguments_are_the_kernels_own_parameters() {
    for launch in launches() {
        let passed = launch.arguments.iter().map(|argument| {
            let writes = matches!(argument.value, Value::Tensor { access: Access::Write, .. });
            assert_ne!(argument.value, Value::Absent, "{}: {}", launch.program.kernel, argument.name);
            (argument.name.to_owned(), writes)
        });
        assert_eq!(passed.collect::<Vec<_>>(), declared(&launch), "{}", launch.program.kernel);
    }
}

#[test]
fn every_kernel_is_launched_with_as_many_threads_as_it_is_compiled_for() {
    for launch in launches() {
        let (kernel, text) = (launch.program.kernel, kernel_text(&launch));
        let bounds = text.split("__launch_bounds__(").nth(1).unwrap().split(")\n").next().unwrap();
        let define =
            |name: &str| launch.program.defines.iter().find(|(define, _)| *define == name).map(|(_, value)| *value);
        let threads = match bounds {
            "32 * WARPS" => 32 * define("WARPS").unwrap(),
            "THREADS" => text.split("#define THREADS ").nth(1).unwrap().lines().next().unwrap().parse().unwrap(),
            number => number.parse().unwrap(),
        };
        assert_eq!(launch.extent.threads as usize, threads, "{kernel}");
        assert_eq!(launch.extent.grid[0] % launch.extent.cluster, 0, "{kernel}");
    }
}

#[test]
fn every_kernel_of_the_folder_is_on_some_plan() {
    let planned: BTreeSet<String> = launches().iter().map(|launch| format!("{}.cu", launch.program.kernel)).collect();
    let files = FILES.iter().map(|file| file.name.to_owned()).filter(|file| file.ends_with(".cu"));
    assert_eq!(planned, files.collect());
}
