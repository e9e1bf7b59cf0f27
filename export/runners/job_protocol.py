"""How a runner script talks: a list of jobs as JSON on standard input, an answer to each as a line of JSON on standard
output, up to the first that fails.

Everything libraries print, also from C++, goes to standard error.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def answer(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Do `work(job)` for each job and print what it returns, or what went wrong."""
    jobs = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w") as reply:
        os.dup2(2, 1)
        for job in jobs:
            result: dict[str, Any]
            try:
                result = work(job)
            except OSError as error:
                result = {"error": f"{type(error).__name__}: {error}", "errno": error.errno}
            except Exception as error:
                result = {"error": f"{type(error).__name__}: {error}"}
            # At once: whoever waits must see how far a process came that is killed.
            print(json.dumps(result), file=reply, flush=True)
            if "error" in result:
                break
