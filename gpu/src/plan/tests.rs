//! Tests of whole plans.

use nsa_corpus::{Dtype, Shape, Sizes};

use super::kernels::Cut;
use super::{
    Axis, Launch, Layout, Operand, Plan, Problem, Role, Rung, Tensor, Value, Variant, Views, Workspace, extent,
};

/// A problem with every tensor there is.
fn full(dtype: Dtype, rung: Rung) -> Problem {
    let (q_heads, kv_heads, sel_heads, seq_len, dim, value_dim) = (4, 2, 2, 10, 8, 16);
    let sizes = Sizes { batch: 3, q_heads, kv_heads, seq_len, dim, value_dim, block_size: 4, num_sel: 3, sel_heads };
    Problem {
        sliding_window: Some(3),
        sel_scale: true,
        d_lse: true,
        d_sliding: true,
        variant: Some(Variant::uniform(rung)),
        ..Problem::new(&Shape::new(sizes).unwrap(), dtype)
    }
}

fn plan(problem: &Problem) -> Plan {
    Plan::new(problem, "sm_90a").unwrap()
}

fn bytes(plan: &Plan, role: Role) -> usize {
    let of_role = plan.buffers().iter().filter(|planned| planned.tensor.role() == role);
    of_role.map(|planned| planned.extent.bytes()).sum()
}

fn names(launches: &[Launch]) -> Vec<&'static str> {
    launches.iter().map(|launch| launch.program.kernel).collect()
}

#[test]
fn the_backward_launches_what_fills_a_workspace_before_what_reads_it() {
    let plan = plan(&full(Dtype::Bf16, Rung::Tensor));
    assert_eq!(names(plan.forward()), ["forward_tensor"]);
    let order = ["delta", "dq_tensor", "visit_count", "visit_scan", "visit_fill", "dkdv_tensor", "dkdv_merge"];
    assert_eq!(names(plan.backward()), order);
    let after: Vec<&[usize]> = plan.backward().iter().map(|launch| launch.after.as_slice()).collect();
    // The query gradients and the inverted index need not wait for each other.
    let expected: [&[usize]; 7] = [&[], &[0], &[], &[2], &[2, 3], &[0, 3, 4], &[3, 5]];
    assert_eq!(after, expected);
}

#[test]
fn what_a_problem_lacks_is_passed_as_null_and_has_no_buffer() {
    let all = full(Dtype::F32, Rung::Plain);
    let none = Problem { sliding_window: None, sel_scale: false, d_lse: false, d_sliding: false, ..all };
    let absent = |plan: &Plan| -> Vec<&'static str> {
        let launches = plan.forward().iter().chain(plan.backward());
        let arguments = launches.flat_map(|launch| &launch.arguments);
        let mut names: Vec<_> = arguments.filter(|a| a.value == Value::Absent).map(|a| a.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    assert_eq!(absent(&plan(&all)), Vec::<&str>::new());
    assert_eq!(plan(&all).buffers().len(), Tensor::ALL.len());
    let lacking = ["d_lse", "d_sliding", "dsel_scale", "sel_scale", "sliding_delta", "sliding_lse", "sliding_out"];
    assert_eq!(absent(&plan(&none)), lacking);
    assert_eq!(plan(&none).buffers().len(), Tensor::ALL.len() - lacking.len());
    // A window without a cotangent: the forward has it, the backward does not.
    let silent = plan(&Problem { d_sliding: false, ..all });
    let window = |launch: &Launch| match &launch.arguments.last().unwrap().value {
        Value::Dims(dims) => dims.window,
        other => panic!("{other:?}"),
    };
    assert_eq!((window(&silent.forward()[0]), window(&silent.backward()[0])), (3, -1));
}

#[test]
fn bytes_are_those_of_every_buffer() {
    let plan = plan(&full(Dtype::Bf16, Rung::Tensor));
    // q, k, v; indices, mask, sel_scale.
    let inputs = 2 * (3 * 4 * 10 * 8 + 3 * 2 * 10 * 8 + 3 * 2 * 10 * 16) + 3 * 2 * 10 * 3 * 9;
    assert_eq!(bytes(&plan, Role::Input), inputs);
    assert_eq!(bytes(&plan, Role::Cotangent), 2 * 2 * 3 * 4 * 10 * 16 + 3 * 4 * 10 * 4);
    assert_eq!(bytes(&plan, Role::Output), 2 * 3 * 4 * 10 * (16 * 2 + 4));
    assert_eq!(bytes(&plan, Role::Gradient), 2 * 3 * (4 * 10 * 8 + 2 * 10 * 8 + 2 * 10 * 16) + 3 * 2 * 10 * 3 * 4);
    let (lists, blocks, tasks) = (3 * 2, 3, 3 * (2 * 3 + 2 * 3));
    let words = 2 * 3 * 4 * 10 + lists * (blocks + 2 * (blocks + 1) + 30) + tasks * 4 * (8 + 16);
    assert_eq!(bytes(&plan, Role::Workspace), 4 * words);
}

#[test]
fn gaps_of_a_view_and_of_rows_set_apart_count() {
    let problem = full(Dtype::Bf16, Rung::Tensor);
    let far =
        |operand| Problem { views: Views::new(&problem.shape, Layout::Far { operand, axis: Axis::Batch }), ..problem };
    assert!(bytes(&plan(&far(Operand::Selection)), Role::Input) > 9 << 32);
    assert!(bytes(&plan(&far(Operand::Dk)), Role::Gradient) > 2 << 32);
    assert!(bytes(&plan(&far(Operand::Out)), Role::Output) > 4 << 32);
    for (workspace, buffers) in [(Workspace::Visits, 1), (Workspace::Delta, 2), (Workspace::Starts, 2)] {
        let far = bytes(&plan(&Problem { far: Some(workspace), ..problem }), Role::Workspace);
        assert!(far > buffers << 34 && far < (buffers + 1) << 34, "{workspace:?}: {far}");
    }
}

#[test]
fn only_kernels_that_use_a_workspace_are_compiled_anew_when_it_is_set_apart() {
    let of = |workspace| {
        let plan = plan(&Problem { far: Some(workspace), ..full(Dtype::F32, Rung::Plain) });
        let far = plan.backward().iter().filter(|launch| launch.program.far == Some(workspace)).cloned();
        names(&far.collect::<Vec<_>>())
    };
    assert_eq!(of(Workspace::Delta), ["delta", "dq_plain", "dkdv_plain"]);
    assert_eq!(of(Workspace::Counts), ["visit_count", "visit_scan", "visit_fill"]);
    assert_eq!(of(Workspace::Starts), ["visit_scan", "dkdv_plain", "dkdv_merge"]);
    assert_eq!(of(Workspace::Visits), ["visit_fill", "dkdv_plain"]);
    assert_eq!(of(Workspace::Partial), ["dkdv_plain", "dkdv_merge"]);
}

#[test]
fn addresses_are_aligned_to_what_a_rung_loads_at_once() {
    let align = |dtype, rung, tensor| plan(&full(dtype, rung)).buffer(tensor).unwrap().align;
    assert_eq!(align(Dtype::Bf16, Rung::Tensor, Tensor::Q), 16);
    assert_eq!(align(Dtype::Bf16, Rung::Plain, Tensor::Q), 2);
    assert_eq!(align(Dtype::Bf16, Rung::Tensor, Tensor::Dk), 2);
    assert_eq!(align(Dtype::F32, Rung::Plain, Tensor::Mask), 1);
    assert_eq!(align(Dtype::Bf16, Rung::Tensor, Tensor::Partial), 4);
}

#[test]
fn a_launch_that_is_too_large_is_refused_by_its_kernel() {
    let cut = |x, y| extent("some_kernel", Cut { ctas: [x, y], warps: 4, static_shared: 8 });
    let most = cut((1 << 31) - 1, (1 << 16) - 1).unwrap();
    assert_eq!((most.grid, most.threads, most.static_shared), ([(1 << 31) - 1, (1 << 16) - 1, 1], 128, 8));
    let error = cut(1 << 31, 1).unwrap_err().to_string();
    assert_eq!(error, "some_kernel needs a grid of [2147483648, 1] CTAs");
    assert!(cut(1, 1 << 16).is_err());
}

#[test]
fn an_old_architecture_is_refused_and_an_unknown_one_is_taken_for_the_oldest() {
    let problem = full(Dtype::Bf16, Rung::Tensor);
    let error = Plan::new(&problem, "sm_75").unwrap_err().to_string();
    assert_eq!(error, "forward_tensor needs compute capability 80, sm_75 is older");
    assert_eq!(Plan::new(&problem, "unknown").unwrap().variant(), Variant::uniform(Rung::Tensor));
}
