"""A shared object behind the C interface (`harness/guests/c/nsa_guest.h`) as a guest.

It is loaded here, in the guest's own process, so that a fault in it ends this process and not the harness.
"""

import ctypes
import json
import os

import numpy as np

from .case import Skip
from .serve import guest

ABI = 1
SIZES = ("batch", "q_heads", "kv_heads", "sel_heads", "seq_len", "dim", "value_dim", "block_size", "num_sel")
TENSORS = ("q", "k", "v", "indices", "mask", "sel_scale", "d_out", "d_lse", "d_sliding")
FIELDS = ("out", "lse", "sliding_out", "sliding_lse", "dq", "dk", "dv", "dsel_scale")


class Problem(ctypes.Structure):
    _fields_ = [
        ("abi", ctypes.c_uint32),
        ("include_block_causal", ctypes.c_uint32),
        *((name, ctypes.c_int64) for name in (*SIZES, "sliding_window")),
        ("element", ctypes.c_char_p),
        *((name, ctypes.c_void_p) for name in TENSORS),
    ]


class Answer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in FIELDS]


def declare(path):
    """Loads the library at `path` and registers it as this process's guest."""
    library = ctypes.CDLL(os.path.abspath(path))
    library.nsa_guest_declaration.restype = ctypes.c_char_p
    library.nsa_guest_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    guest(**json.loads(library.nsa_guest_declaration()))(lambda case: run(library, case))


def run(library, case):
    kind = np.float64 if case.element == "f64" else np.float32
    held = {name: convert(name, getattr(case, name), kind) for name in TENSORS}
    outputs = {name: np.full(shape_of(name, case), np.nan, kind) for name in case.fields}
    problem = Problem(
        abi=ABI,
        include_block_causal=int(case.include_block_causal),
        sliding_window=-1 if case.sliding_window is None else case.sliding_window,
        element=case.element.encode(),
        **dict(zip(SIZES, sizes(case))),
        **{name: None if tensor is None else tensor.ctypes.data for name, tensor in held.items()},
    )
    answer = Answer(**{name: tensor.ctypes.data for name, tensor in outputs.items()})
    message = ctypes.create_string_buffer(1024)
    status = library.nsa_guest_run(ctypes.byref(problem), ctypes.byref(answer), message, len(message))
    text = message.value.decode(errors="replace")
    if status == 1:
        raise Skip(text)
    if status != 0:
        raise RuntimeError(f"status {status}: {text}")
    return outputs


def convert(name, tensor, kind):
    kinds = {"indices": np.int64, "mask": np.uint8}
    return None if tensor is None else np.ascontiguousarray(tensor, kinds.get(name, kind))


def sizes(case):
    batch, q_heads, seq_len, dim = case.q.shape
    value_dim, sel_heads, num_sel = case.v.shape[3], case.indices.shape[1], case.indices.shape[3]
    return batch, q_heads, case.k.shape[1], sel_heads, seq_len, dim, value_dim, case.block_size, num_sel


def shape_of(field, case):
    rows = case.q.shape[:3]
    shapes = {"lse": rows, "sliding_lse": rows, "dq": case.q.shape, "dk": case.k.shape, "dv": case.v.shape}
    shapes["dsel_scale"] = case.indices.shape
    return shapes.get(field, (*rows, case.v.shape[3]))
