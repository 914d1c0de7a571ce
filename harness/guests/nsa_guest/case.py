"""A request as the author of a guest sees it."""

import json
from dataclasses import dataclass
from typing import Any, Optional


class Skip(Exception):
    """Raised by a guest that does not compute a case after all; its text is the reason."""


@dataclass
class Case:
    """The tensors and options of one problem; `docs/semantics.md` has the shapes."""

    q: Any  # [b, q_heads, n, dim]
    k: Any  # [b, kv_heads, n, dim]
    v: Any  # [b, kv_heads, n, value_dim]
    indices: Any  # [b, sel_heads, n, num_sel], whole numbers
    mask: Any  # like indices, truth values
    sel_scale: Optional[Any]  # like indices
    d_out: Optional[Any]  # [b, q_heads, n, value_dim]
    d_lse: Optional[Any]  # [b, q_heads, n]
    d_sliding: Optional[Any]  # [b, q_heads, n, value_dim]
    block_size: int
    include_block_causal: bool
    sliding_window: Optional[int]  # None: no sliding output
    element: str  # "f64", "f32", "f16" or "bf16"
    fields: tuple  # the names of the outputs that are asked for

    @property
    def has_gradients(self):
        return self.d_out is not None or self.d_lse is not None or self.d_sliding is not None


TENSORS = ("q", "k", "v", "indices", "mask", "sel_scale", "d_out", "d_lse", "d_sliding")


def read(path, fields, given):
    """The case that a request's file holds."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    config = json.loads(header["__metadata__"]["config"])
    loaded = load(path, header, given)
    return Case(
        **{name: loaded.get(name) for name in TENSORS},
        block_size=config["block_size"],
        include_block_causal=config["include_block_causal"],
        sliding_window=config["sliding_window_size"],
        element=config["dtype"],
        fields=tuple(fields),
    )


def load(path, header, given):
    if given.framework == "torch":
        from safetensors.torch import load_file

        loaded = load_file(path, device=given.device)
        return loaded if given.cast is None else {name: cast(tensor, given.cast) for name, tensor in loaded.items()}
    if header["q"]["dtype"] != "BF16":
        from safetensors.numpy import load_file

        return load_file(path)
    return {name: widen(path, info) for name, info in header.items() if name != "__metadata__"}


def cast(tensor, name):
    """A floating-point tensor in another format; any other as it is."""
    import torch

    return tensor.to({"f32": torch.float32, "f64": torch.float64}[name]) if tensor.is_floating_point() else tensor


def widen(path, info):
    """A tensor of a file with bf16 in it, which numpy has not: as f32, which holds every bf16."""
    import numpy as np

    start, end = info["data_offsets"]
    with open(path, "rb") as file:
        data = 8 + int.from_bytes(file.read(8), "little")
        file.seek(data + start)
        raw = file.read(end - start)
    if info["dtype"] == "BF16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(info["shape"])
    kinds = {"I64": np.int64, "BOOL": np.bool_, "F32": np.float32, "F64": np.float64}
    return np.frombuffer(raw, kinds[info["dtype"]]).reshape(info["shape"])
