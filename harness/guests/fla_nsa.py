"""The selected path of `parallel_nsa` of flash-linear-attention (the package fla-core), mapped onto the contract.

It attends to the selected blocks alone, causally within each: a key later than the query never counts. The contract's
diagonal becomes one more selected block, and its masked slots become a shorter count of blocks. What the contract has beyond
that is skipped with a reason: a live slot that selects the query's own block or a later one, padded keys of the last
block, sel_scale, lse, its cotangent, and the sliding part.
"""

import torch
from fla.ops.nsa.parallel import parallel_nsa
from nsa_guest import Skip, guest


@guest(
    name="fla parallel_nsa",
    # q is multiplied by the scale and rounded to its format before the scores: see `cast` below.
    arithmetic={"f16": "tensor_core", "bf16": "tensor_core"},
    fields=["out", "dq", "dk", "dv"],
    framework="torch",
    device="cuda",
    supports={
        "groups": {"min": 16, "power_of_two": True},
        "dim": {"max": 256},
        "block_size": {"min": 16, "power_of_two": True},
        "sel_heads": ["kv"],
        "sel_scale": "ones",
        "sliding": "none",
        "d_lse": False,
    },
)
def attend(case):
    n, block = case.q.shape[2], case.block_size
    # The scaled queries are exact only where the scale is a power of two; elsewhere their rounding is outside the budget.
    if case.q.shape[3] not in (1, 4, 16, 64, 256):
        raise Skip("its scaled queries are rounded to 16 bits unless dim is a power of 4")
    own = (torch.arange(n, device=case.q.device) // block)[None, None, :, None].expand(*case.indices.shape[:3], 1)
    if (case.mask & (case.indices >= own)).any():
        raise Skip("it masks keys later than the query in every block: a slot selects the query's own block or a later one")
    # Live slots first, then the diagonal where there is one; what lies beyond the count is not read.
    order = (~case.mask).to(torch.int8).argsort(dim=-1, stable=True)
    selected = torch.where(case.mask, case.indices, 0).gather(-1, order)
    counts = case.mask.sum(-1)
    slots = torch.cat((selected, torch.zeros_like(own)), -1)
    if case.include_block_causal:
        slots.scatter_(-1, counts[..., None], own)
        counts = counts + 1
    if (counts == 0).any():
        raise Skip("a row without any key is not defined")
    rows = lambda t: t.transpose(1, 2).contiguous()
    out = parallel_nsa(
        rows(case.q), rows(case.k), rows(case.v), block_indices=rows(slots), block_counts=rows(counts), block_size=block
    )
    return {"out": out.transpose(1, 2)}
