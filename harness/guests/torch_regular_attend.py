"""`regular_attend` of native-sparse-attention-pytorch's test script, in torch, f32 or f64, with autograd's gradients.

Our own transcription of what it computes: gather the selected blocks, mask by a large negative score, one softmax. It reads
`block_size` where the script reads a global by mistake. NSA_DEVICE names the device, "cuda" where there is one.
"""

import os

import torch
import torch.nn.functional as F
from nsa_guest import guest

DEVICE = os.environ.get("NSA_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
torch.backends.cuda.matmul.allow_tf32 = False
# Autograd differentiates the softmax itself: its delta is the sum of P dP.
ARITHMETIC = {
    # A library's product may round products and sums apart.
    "f32": {"preset": "f32", "delta": "probabilities", "unit": 2.0**-23},
    "f64": {"preset": "f64", "delta": "probabilities", "unit": 2.0**-52},
}


@guest(
    name="torch_regular_attend",
    arithmetic=ARITHMETIC,
    determinism={"dk": "bounded", "dv": "bounded"},
    framework="torch",
    device=DEVICE,
    supports={"no_block_causal": False},
)
def attend(case):
    n, block = case.q.shape[2], case.block_size
    w = -(-n // block)
    pad = lambda t, value=0: F.pad(t, (0, 0, 0, w * block - n), value=value)
    # Legend: b batch, h head with a selection of its own, g query head of it, w block, i query, s slot, j key, d feature.
    shared = case.indices.shape[1] // case.k.shape[1]
    k, v = (pad(t).repeat_interleave(shared, 1).unflatten(2, (w, block)) for t in (case.k, case.v))
    heads = k.shape[1]
    q = pad(case.q).unflatten(1, (heads, -1)).unflatten(3, (w, block))
    lowest = -torch.finfo(q.dtype).max

    scores = torch.einsum("bhgwid,bhwjd->bhgwij", q, k)
    later = torch.ones(block, block, dtype=torch.bool, device=q.device).triu(1)
    scores = scores.masked_fill(later, lowest)
    values = v[:, :, :, None].expand(-1, -1, -1, block, -1, -1)
    if case.indices.shape[-1] > 0:
        gathered = lambda t: torch.stack([t[b, h, pad(case.indices)[b, h]] for b in range(t.shape[0]) for h in range(heads)])
        sel_k, sel_v = (gathered(t).unflatten(0, k.shape[:2]).unflatten(2, (w, block)) for t in (k, v))
        more = torch.einsum("bhgwid,bhwisjd->bhgwisj", q, sel_k)
        if case.sel_scale is not None:
            more = more * pad(case.sel_scale).unflatten(2, (w, block))[:, :, None, ..., None]
        live = pad(case.mask).unflatten(2, (w, block))[:, :, None, ..., None]
        more = torch.where(live, more, lowest)
        scores = torch.cat((scores, more.flatten(-2)), -1)
        values = torch.cat((values, sel_v.flatten(4, 5)), -2)
    scores = scores * q.shape[-1] ** -0.5
    out = torch.einsum("bhgwij,bhwijd->bhgwid", scores.softmax(-1), values)
    rows = lambda t: t.flatten(3, 4).flatten(1, 2)[:, :, :n]
    return {"out": rows(out), "lse": rows(scores.logsumexp(-1)), **sliding(case)}


def sliding(case):
    """Plain causal attention within the window."""
    if case.sliding_window is None:
        return {}
    groups, n = case.q.shape[1] // case.k.shape[1], case.q.shape[2]
    k, v = (t.repeat_interleave(groups, 1) for t in (case.k, case.v))
    at = torch.arange(n, device=k.device)
    distance = at[:, None] - at
    scores = (case.q @ k.mT).masked_fill((distance < 0) | (distance > case.sliding_window), -torch.inf)
    scores = scores * case.q.shape[-1] ** -0.5
    return {"sliding_out": scores.softmax(-1) @ v, "sliding_lse": scores.logsumexp(-1)}
