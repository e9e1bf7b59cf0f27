"""How a runner script talks: a job as JSON on standard input, an answer as JSON on standard output.

Everything libraries print, also from C++, goes to standard error.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def answer(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Do `work(job)` and print what it returns, or what went wrong."""
    job = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w") as reply:
        os.dup2(2, 1)
        result: dict[str, Any]
        try:
            result = work(job)
        except OSError as error:
            result = {"error": f"{type(error).__name__}: {error}", "errno": error.errno}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        json.dump(result, reply)
