"""Puts an implementation of native sparse attention under test (docs/guest-protocol.md).

    from nsa_guest import guest

    @guest(name="mine", arithmetic="f32")
    def attend(case):
        return {"out": ..., "lse": ...}

`case` has the tensors `q, k, v, indices, mask, sel_scale, d_out, d_lse, d_sliding` (None where absent) and the options
`block_size, include_block_causal, sliding_window, element, fields`. With framework="torch" they are torch tensors, and
what the function returns is differentiated where gradients are asked for and it returned none itself.
"""

from .case import Case, Skip
from .serve import guest

__all__ = ["Case", "Skip", "guest"]
