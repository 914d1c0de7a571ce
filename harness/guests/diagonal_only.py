import torch
from nsa_guest import Skip, guest


@guest(
    name="the diagonal alone",
    arithmetic={"f32": {"preset": "f32", "delta": "probabilities", "unit": 2.0**-23}},
    framework="torch",
    supports={"sliding": "none", "no_block_causal": False},
)
def attend(case):
    if case.mask.any():
        raise Skip("it selects no blocks")
    n, groups = case.q.shape[2], case.q.shape[1] // case.k.shape[1]
    k, v = (tensor.repeat_interleave(groups, 1) for tensor in (case.k, case.v))
    at = torch.arange(n)
    seen = (at[:, None] >= at) & (at[:, None] // case.block_size == at // case.block_size)
    scores = (case.q @ k.mT * case.q.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf)
    return {"out": scores.softmax(-1) @ v, "lse": scores.logsumexp(-1)}
