"""An independent plain implementation: one query row at a time, in f64, from the contract's text alone."""

import numpy as np
from nsa_guest import guest

# A product and a sum that are not fused round twice, where the preset counts one rounding.
UNIT = {"unit": 2.0**-52, "scores": {"fma": {"unit": 2.0**-52}}, "products": {"fma": {"unit": 2.0**-52}}}


@guest(name="numpy_plain", arithmetic={"preset": "f64", "exponential": 2.0**-50, **UNIT}, reads_only_what_it_attends_to=True)
def attend(case):
    with np.errstate(all="ignore"):
        return Problem(case).solve()


class Problem:
    def __init__(self, case):
        wide = lambda tensor: None if tensor is None else tensor.astype(np.float64)
        self.case, self.block = case, case.block_size
        self.q, self.sel_scale = wide(case.q), wide(case.sel_scale)
        self.d_out, self.d_lse, self.d_sliding = wide(case.d_out), wide(case.d_lse), wide(case.d_sliding)
        padding = -case.q.shape[2] % self.block
        self.k, self.v = (np.pad(wide(t), ((0, 0), (0, 0), (0, padding), (0, 0))) for t in (case.k, case.v))
        self.scale = case.q.shape[3] ** -0.5
        self.groups = case.q.shape[1] // case.k.shape[1]
        self.sel_groups = case.q.shape[1] // case.indices.shape[1]
        rows = case.q.shape[:3]
        self.outputs = {"out": np.zeros((*rows, case.v.shape[3])), "lse": np.full(rows, -np.inf)}
        self.outputs |= {"sliding_out": np.zeros((*rows, case.v.shape[3])), "sliding_lse": np.full(rows, -np.inf)}
        self.grads = {"dq": np.zeros_like(self.q), "dk": np.zeros_like(self.k), "dv": np.zeros_like(self.v)}
        self.grads["dsel_scale"] = np.zeros(case.indices.shape)

    def solve(self):
        for b, h, i in np.ndindex(self.q.shape[:3]):
            self.row(b, h, i, *self.selected(b, h, i), "", self.d_out, self.d_lse)
            if self.case.sliding_window is not None:
                keys = np.arange(max(0, i - self.case.sliding_window), i + 1)
                self.row(b, h, i, keys, np.ones(len(keys)), np.full(len(keys), -1), "sliding_", self.d_sliding, None)
        tokens = self.q.shape[2]
        self.grads["dk"], self.grads["dv"] = self.grads["dk"][:, :, :tokens], self.grads["dv"][:, :, :tokens]
        return {**self.outputs, **self.grads}

    def selected(self, b, h, i):
        """The keys that row i attends to, with multiplicity: their positions, their factors, their slots (-1: none)."""
        start = i // self.block * self.block
        keys = [np.arange(start, i + 1)] if self.case.include_block_causal else []
        factors, slots = [np.ones(len(keys[0]))] if keys else [], [np.full(len(keys[0]), -1)] if keys else []
        s = h // self.sel_groups
        for slot in np.flatnonzero(self.case.mask[b, s, i]):
            factor = 1.0 if self.sel_scale is None else self.sel_scale[b, s, i, slot]
            keys.append(self.case.indices[b, s, i, slot] * self.block + np.arange(self.block))
            factors.append(np.full(self.block, factor))
            slots.append(np.full(self.block, slot))
        join = lambda parts, kind: np.concatenate(parts) if parts else np.zeros(0, kind)
        return join(keys, int), join(factors, float), join(slots, int)

    def row(self, b, h, i, keys, factors, slots, prefix, d_out, d_lse):
        if len(keys) == 0:
            return
        kv, q = h // self.groups, self.q[b, h, i]
        k, v = self.k[b, kv, keys], self.v[b, kv, keys]
        products = k @ q
        scores = self.scale * factors * products
        top = scores.max()
        weights = np.exp(scores - top)
        total = weights.sum()
        weights /= total
        out = weights @ v
        self.outputs[prefix + "out"][b, h, i] = out
        self.outputs[prefix + "lse"][b, h, i] = top + np.log(total)
        if d_out is None and d_lse is None:
            return
        d_scores = np.zeros(len(keys))
        if d_out is not None:
            g = d_out[b, h, i]
            d_scores += weights * (v @ g - g @ out)
            np.add.at(self.grads["dv"][b, kv], keys, weights[:, None] * g)
        if d_lse is not None:
            d_scores += weights * d_lse[b, h, i]
        self.grads["dq"][b, h, i] += self.scale * (factors * d_scores) @ k
        np.add.at(self.grads["dk"][b, kv], keys, self.scale * (factors * d_scores)[:, None] * q)
        live = slots >= 0
        np.add.at(self.grads["dsel_scale"][b, h // self.sel_groups, i], slots[live], self.scale * (d_scores * products)[live])
