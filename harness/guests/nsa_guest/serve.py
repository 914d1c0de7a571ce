"""The loop of a guest: one JSON line in, one out."""

import json
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Optional

from . import case as cases

PROTOCOL = 1
GRADIENTS = (("q", "dq"), ("k", "dk"), ("v", "dv"), ("sel_scale", "dsel_scale"))
GUESTS = []
COTANGENTS = (("out", "d_out"), ("lse", "d_lse"), ("sliding_out", "d_sliding"))


def guest(
    *,
    name,
    arithmetic,
    supports=None,
    fields=None,
    determinism="bitwise",
    reads_only_what_it_attends_to=False,
    framework="numpy",
    device="cpu",
    cast=None,
):
    """Declares the function below it as the guest of its file, which `python -m nsa_guest FILE.py` serves.

    `cast`, of a torch guest: "f32" or "f64", what floating-point inputs are widened to before they are handed over.
    """

    def decorate(function):
        declaration = {"type": "hello", "protocol": PROTOCOL, "name": name, "arithmetic": arithmetic}
        declaration.update(determinism=determinism, supports=supports or {}, reads_only_what_it_attends_to=reads_only_what_it_attends_to)
        if fields is not None:
            declaration["fields"] = list(fields)
        GUESTS.append((function, declaration, Given(framework, device, cast)))
        return function

    return decorate


@dataclass(frozen=True)
class Given:
    """How tensors are handed over."""

    framework: str
    device: str
    cast: Optional[str]


def take_stdout():
    """A stream for replies alone: what libraries print goes to stderr from here on."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return replies


def end_with_the_harness():
    """Ends this process soon after its parent has ended, in the middle of a case too: nobody waits for the answer."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def serve(function, declaration, given, replies):
    folder = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["type"] == "hello":
            folder, reply = request["folder"], {**declaration, "environment": environment(given.device)}
        else:
            reply = answer(function, request, folder, given)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
        if reply.get("fatal"):
            os._exit(1)


def environment(device):
    """Where this runs: versions of what the guest has imported, and its device."""
    found = {"python": sys.version.split()[0]}
    for name in ("numpy", "torch", "triton"):
        if name in sys.modules:
            found[name] = str(getattr(sys.modules[name], "__version__", "?"))
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            found.update(device=torch.cuda.get_device_name(device), cuda=str(torch.version.cuda))
    return found


def answer(function, request, folder, given):
    number = request["id"]
    try:
        path = os.path.join(folder, request["inputs"])
        case = cases.read(path, request["fields"], given)
        outputs = differentiated(function, case) if given.framework == "torch" else function(case)
        save(outputs, case.fields, os.path.join(folder, f"answer-{number}.safetensors"), given.framework)
        return {"type": "result", "id": number, "outputs": f"answer-{number}.safetensors"}
    except cases.Skip as skip:
        return {"type": "skip", "id": number, "reason": str(skip)}
    except Exception as error:
        traceback.print_exc()
        return {"type": "error", "id": number, "message": f"{type(error).__name__}: {error}"[:2000], **judged(error)}


def judged(error):
    """The class of an error; one that leaves the device unusable ends this process, and the next case gets a new one.

    Of what a guest raises once it has started, only a full device is not its fault. That is told by the exception's type:
    its name and its text are the guest's to choose.
    """
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, full_device()):
        return {"class": "environment"}
    if "CompilationError" in text or "OutOfResources" in text or "InductorError" in text:
        return {"class": "compile"}
    sticky = ("CUDA error", "AcceleratorError", "illegal memory access", "misaligned address", "device-side assert")
    return {"class": "crash", "fatal": any(part in text for part in sticky)}


def full_device():
    """What torch raises where the memory of a device does not suffice; nothing where the guest does not use torch."""
    torch = sys.modules.get("torch")
    found = (getattr(torch, "OutOfMemoryError", None), getattr(getattr(torch, "cuda", None), "OutOfMemoryError", None))
    return tuple(kind for kind in found if isinstance(kind, type))


def differentiated(function, case):
    """The function's outputs, and the gradients that it did not give, by autograd."""
    import torch

    wanted = [(source, field) for source, field in GRADIENTS if field in case.fields]
    for source, _ in wanted:
        setattr(case, source, getattr(case, source).detach().requires_grad_())
    outputs = function(case)
    missing = [(source, field) for source, field in wanted if field not in outputs]
    pairs = [(outputs[field], getattr(case, given)) for field, given in COTANGENTS if field in outputs]
    pairs = [(output, given.to(output.dtype)) for output, given in pairs if given is not None and output.requires_grad]
    if missing and pairs:
        sources = [getattr(case, source) for source, _ in missing]
        outs, cotangents = zip(*pairs)
        grads = torch.autograd.grad(outs, sources, cotangents, allow_unused=True)
    else:
        grads = [None] * len(missing)
    for (source, field), grad in zip(missing, grads):
        outputs[field] = torch.zeros_like(getattr(case, source)) if grad is None else grad
    return outputs


def save(outputs, fields, path, framework):
    kept = {name: tensor for name, tensor in outputs.items() if name in fields and tensor is not None}
    if framework == "torch":
        from safetensors.torch import save_file

        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in kept.items()}, path)
    else:
        import numpy
        from safetensors.numpy import save_file

        save_file({name: numpy.ascontiguousarray(tensor) for name, tensor in kept.items()}, path)
