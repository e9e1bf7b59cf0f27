"""Fresh Python processes in which TensorFlow has been imported already: forks of one that has done nothing else.

Export works in processes of its own. Three of them for each model import TensorFlow, which takes longer than most of
their work; a fork has its modules at once, and nothing that an earlier job left behind.
"""

import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

MODULES = ["tensorflow", "tf2onnx", "onnx", "onnxruntime.quantization", "onnxruntime.transformers.float16"]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(MODULES)


def python(script: Path, given: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script as `python SCRIPT` does, `given` on its standard input."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        for path, text in zip(streams, (given, "", ""), strict=True):
            path.write_text(text)
        process = _forks.Process(target=_run, args=(str(script), [str(path) for path in streams], environment))
        process.start()
        process.join()
        assert process.exitcode is not None
        said = [path.read_text(errors="replace") for path in streams[1:]]
    return subprocess.CompletedProcess([str(script)], process.exitcode, *said)


def _run(script: str, streams: list[str], environment: dict[str, str]) -> None:
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_WRONLY if number else os.O_RDONLY), number)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    os.environ.update(environment)
    missing = [name for name in MODULES if name not in sys.modules]
    assert not missing, f"not imported before the fork: {missing}"
    sys.argv = [script]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")
