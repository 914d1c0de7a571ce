"""`native_sparse_attend`, the Triton kernel of native-sparse-attention-pytorch, as PyPI has it.

    nsa-diff run --candidate 'guest:triton_nsa'          # block_dk_dv_use_dot = False
    nsa-diff run --candidate 'guest:triton_nsa dot'      # block_dk_dv_use_dot = True

It computes in fp16 whatever it is given, so that f16 alone is declared. What its assertions refuse is declared here; what
they let through is run, and judged.
"""

import sys

import torch
from native_sparse_attention_pytorch.triton_native_sparse_attention import native_sparse_attend
from nsa_guest import guest

USE_DOT = "dot" in sys.argv[1:]


@guest(
    name="triton_nsa, block_dk_dv_use_dot = " + str(USE_DOT),
    # Keys are taken 16 at a time in selected blocks; lse is stored after every one of them.
    arithmetic={"f16": {"preset": "tensor_core", "rescale_every": 16}},
    determinism={"dq": "bounded", "dk": "bounded", "dv": "bounded", "dsel_scale": "bounded"},
    framework="torch",
    device="cuda",
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
    scale = case.sel_scale
    if scale is not None:
        scale = scale.float()  # its gradient is computed in f32
    out, lse = native_sparse_attend(
        case.q,
        case.k,
        case.v,
        case.block_size,
        case.indices,
        case.mask,
        sel_scale=scale,
        include_block_causal=case.include_block_causal,
        return_lse=True,
        block_dk_dv_use_dot=USE_DOT,
        return_sliding_window_out=both,
    )
    torch.cuda.synchronize()  # a fault of the forward is reported as the forward's
    if both:
        return dict(zip(("out", "sliding_out", "lse", "sliding_lse"), (*out, *lse)))
    return {"out": out, "lse": lse}
