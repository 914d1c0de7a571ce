"""torch's `flex_attention` for the sliding path, in f32 on a CPU and in any format on a GPU.

    nsa-diff run 'sliding*' --candidate 'guest:flex_attention_sliding'             # forward
    nsa-diff fuzz --candidate 'guest:flex_attention_sliding gradients'   # problems whose only cotangent is d_sliding
"""

import os
import sys

import torch
import torch._dynamo
from nsa_guest import Skip, guest
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

DEVICE = os.environ.get("NSA_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
GRADIENTS = "gradients" in sys.argv[1:]
torch.backends.cuda.matmul.allow_tf32 = False
# Every shape is compiled: after so many it would go on uncompiled, which is another arithmetic.
torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 1 << 30
attention = torch.compile(flex_attention, dynamic=False) if DEVICE == "cuda" else flex_attention
# Without compilation it is plain matrix products and a softmax, stored in the format of the inputs.
ARITHMETIC = {"f32": {"preset": "f32", "unit": 2.0**-23}}
SUPPORTS = {"d_out": False, "d_lse": False} if GRADIENTS else {}
if DEVICE == "cuda":
    # Its f32 products are f32 multiply-adds at torch's default precision, "highest".
    ARITHMETIC = {"f32": "f32", "f16": "tensor_core", "bf16": "tensor_core"}
    # It says so: "embedding dimension of the query, key, and value must be at least 16".
    SUPPORTS.update(dim={"min": 16}, value_dim={"min": 16})


@guest(
    name="flex_attention, sliding" + (", gradients" if GRADIENTS else ""),
    arithmetic=ARITHMETIC,
    fields=["sliding_out", "sliding_lse"] + (["dq", "dk", "dv"] if GRADIENTS else []),
    framework="torch",
    device=DEVICE,
    supports=SUPPORTS,
)
def attend(case):
    if case.sliding_window is None:
        raise Skip("it computes the sliding output only")
    n, window = case.q.shape[2], case.sliding_window

    def within(_b, _h, i, j):
        return (i >= j) & (i - j <= window)

    block_mask = create_block_mask(within, None, None, n, n, device=DEVICE)
    out, lse = attention(case.q, case.k, case.v, block_mask=block_mask, enable_gqa=True, return_lse=True)
    return {"sliding_out": out, "sliding_lse": lse}
