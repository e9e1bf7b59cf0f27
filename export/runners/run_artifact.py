"""Execute an artifact in its own runtime on the cases of a job and write down what came out.

Job: runtime, path, data (.npz of inputs, keys "<case>/<input>" or "<case>/<input>/<i>" for byte strings), cases
(list of {signature, inputs: {name: None or the number of byte strings}}), out (.npz to write).
Answer: inputs and outputs as declared by the artifact, versions, and modules of the library found in this process.
"""

import sys
from typing import Any

import numpy as np
from job_protocol import answer  # type: ignore[import-not-found]
from runtimes import RUNTIMES  # type: ignore[import-not-found]


def execute(job: dict[str, Any]) -> dict[str, Any]:
    loaded, results = RUNTIMES[job["runtime"]](job["path"], None), {}
    with np.load(job["data"]) as data:
        for index, case in enumerate(job["cases"]):
            arrays: dict[str, Any] = {}
            for name, count in case["inputs"].items():
                if count is None:
                    arrays[name] = data[f"{index}/{name}"]
                else:
                    arrays[name] = [data[f"{index}/{name}/{i}"].tobytes() for i in range(count)]
            for name, value in loaded.call(case["signature"], arrays).items():
                results[f"{index}/{name}"] = np.array(value)
    np.savez(job["out"], **results)  # type: ignore[arg-type]
    return {
        "inputs": loaded.inputs,
        "outputs": loaded.outputs,
        "versions": loaded.versions,
        "foreign": sorted(m for m in sys.modules if m.partition(".")[0] == "kerasmodels"),
    }


if __name__ == "__main__":
    answer(execute)
