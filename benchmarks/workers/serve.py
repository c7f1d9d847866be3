"""Answers calls, one JSON line each, with the functions of a worker's script."""

import json
import sys
from collections.abc import Callable


def serve(*functions: Callable[..., dict]) -> None:
    named = {function.__name__: function for function in functions}
    for line in sys.stdin:
        call = json.loads(line)
        reply = named[call["function"]](**call["arguments"])
        print("reply " + json.dumps(reply), flush=True)
