"""`python -m nsa_guest FILE.py [ARGUMENT...]` runs the file and serves the guest that it declares; a shared object is loaded."""

import importlib.util
import os
import sys

from . import serve

if __name__ == "__main__":
    path = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    serve.end_with_the_harness()
    replies = serve.take_stdout()
    if path.endswith((".so", ".dylib")):
        from . import shared_object

        shared_object.declare(path)
    else:
        # A module and not `__main__`: the loop starts once the whole file has run.
        spec = importlib.util.spec_from_file_location("guest_under_test", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    if len(serve.GUESTS) != 1:
        sys.exit(f"{path} declares {len(serve.GUESTS)} guests with @guest, expected 1")
    serve.serve(*serve.GUESTS[0], replies)
