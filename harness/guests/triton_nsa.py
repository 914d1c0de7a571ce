"""`native_sparse_attend`, the Triton kernel of native-sparse-attention-pytorch, as PyPI has it.

    nsa-diff run --candidate 'guest:triton_nsa'          # block_dk_dv_use_dot = False
    nsa-diff run --candidate 'guest:triton_nsa dot'      # block_dk_dv_use_dot = True

It computes in fp16 whatever it is given, and accepts fp16 and bf16: both are declared, with the arithmetic of fp16. Values are
handed over in f32, as the package's own test does, so that gradients come back as its atomic additions left them. What its
assertions refuse is declared here; what they let through is run, and judged.
"""

import sys

import torch
from native_sparse_attention_pytorch.triton_native_sparse_attention import native_sparse_attend
from nsa_guest import guest

USE_DOT = "dot" in sys.argv[1:]
ARITHMETIC = {
    # Products of fp16 with f32 sums; P and dS are cast to fp16, `out` is stored in it.
    "preset": "tensor_core",
    "probability": "f16",
    "output": "f16",
    # dq, dk, dv and dsel_scale are added up in f32 by atomics.
    "gradient": "f32",
    # Selected blocks are taken 16 keys at a time, and of the running sum the logarithm is kept.
    "rescale_every": 16,
    "running_sum": "logarithm",
}
if not USE_DOT:
    # dv of a selected block: P d_out multiplied, and added over the heads of a group, in fp16.
    ARITHMETIC["value_gradient_products"] = "f16"


@guest(
    name="triton_nsa, block_dk_dv_use_dot = " + str(USE_DOT),
    arithmetic={"f16": ARITHMETIC, "bf16": ARITHMETIC},
    determinism={"dq": "bounded", "dk": "bounded", "dv": "bounded", "dsel_scale": "bounded"},
    framework="torch",
    device="cuda",
    cast="f32",
    supports={
        "dim": {"max": 128},
        "value_dim_differs": False,
        "groups": [1, 2, 4, 8, 16],
        "block_size": {"min": 16, "multiple_of": 16},
        "sel_scale": "ones",
        "sliding": "block_size",
        "d_lse": False,
    },
)
def attend(case):
    both = case.sliding_window is not None
    out, lse = native_sparse_attend(
        case.q,
        case.k,
        case.v,
        case.block_size,
        case.indices,
        case.mask,
        sel_scale=case.sel_scale,
        include_block_causal=case.include_block_causal,
        return_lse=True,
        block_dk_dv_use_dot=USE_DOT,
        return_sliding_window_out=both,
    )
    torch.cuda.synchronize()  # a fault of the forward is reported as the forward's
    if both:
        return dict(zip(("out", "sliding_out", "lse", "sliding_lse"), (*out, *lse)))
    return {"out": out, "lse": lse}
