"""The selected path of `parallel_nsa` of flash-linear-attention (the package fla-core), mapped onto the contract.

It attends to the selected blocks alone, causally within each: a key later than the query never counts. The contract's
diagonal becomes one more selected block, and its masked slots become a shorter count of blocks. What the contract has beyond
that is skipped with a reason: a live slot that selects the query's own block or a later one, padded keys of the last
block, sel_scale, a cotangent of lse, and the sliding part.
"""

import torch
from fla.ops.nsa import parallel as nsa
from fla.ops.utils import csr, pooling
from nsa_guest import Skip, guest


def one_configuration(module):
    """Leaves each tuned kernel one way to be compiled: which of dozens is fastest is not asked here."""
    for kernel in vars(module).values():
        while kernel is not None and not isinstance(getattr(kernel, "configs", None), list):
            kernel = getattr(kernel, "fn", None)
        if kernel is not None:
            kernel.configs = [c for c in kernel.configs if c.num_warps == 4][:1] or kernel.configs[:1]


for each in (nsa, csr, pooling):
    one_configuration(each)


@guest(
    name="fla parallel_nsa",
    # P, dS and the scaled queries are cast to the inputs' format. The rounding of a scaled query is outside the budget: see below.
    arithmetic={"f16": "tensor_core", "bf16": "tensor_core"},
    fields=["out", "lse", "dq", "dk", "dv"],
    # The queries of a block are gathered in the order of an atomic counter.
    determinism={"dk": "bounded", "dv": "bounded"},
    framework="torch",
    device="cuda",
    supports={
        "groups": {"min": 16, "power_of_two": True},
        # Below 16 it does not compile, whatever its messages say of larger ones.
        "dim": {"min": 16, "max": 256},
        "block_size": {"min": 16, "power_of_two": True},
        "sel_heads": ["kv"],
        "sel_scale": "ones",
        "sliding": "none",
        "d_lse": False,
    },
)
def attend(case):
    n, block = case.q.shape[2], case.block_size
    scaled = case.q.detach().float() * case.q.shape[3] ** -0.5
    if (scaled.isfinite() & (scaled.to(case.q.dtype).float() != scaled)).any():
        raise Skip("it rounds the scaled queries to 16 bits; they are exact for a dim of 16, 64 or 256 and no tiny values")
    own = (torch.arange(n, device=case.q.device) // block)[None, None, :, None].expand(*case.indices.shape[:3], 1)
    if (case.mask & (case.indices >= own)).any():
        raise Skip("it masks keys later than the query in every block: a slot selects the query's own block or a later one")
    slots, counts = listed(case, own)
    if (counts == 0).any():
        raise Skip("a row without any key is not defined")
    case.q.requires_grad_()  # its lse is among what it saves for the backward
    rows = lambda t: t.transpose(1, 2).contiguous()
    out = nsa.parallel_nsa(
        rows(case.q), rows(case.k), rows(case.v), block_indices=rows(slots), block_counts=rows(counts), block_size=block
    )
    lse = out.grad_fn.saved_tensors[-1].detach()
    return {"out": out.transpose(1, 2), "lse": lse.transpose(1, 2)}


def listed(case, own):
    """The blocks of each row, live slots first, then the diagonal's where there is one, and how many there are.

    What lies beyond the count is not read; it fills the number of slots up to a power of two.
    """
    order = (~case.mask).to(torch.int8).argsort(dim=-1, stable=True)
    selected = torch.where(case.mask, case.indices, 0).gather(-1, order)
    counts = case.mask.sum(-1)
    slots = 1 << (selected.shape[-1]).bit_length()
    padded = torch.nn.functional.pad(selected, (0, slots - selected.shape[-1]))
    if case.include_block_causal:
        padded.scatter_(-1, counts[..., None], own)
        counts = counts + 1
    return padded, counts
