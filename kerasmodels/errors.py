"""Every error this library raises on purpose, and the exit code the CLI gives it.

    KerasModelsError                 exit 1
    ├── UsageError                   exit 2  an unknown name, a value out of range, options that contradict
    ├── DataError                    a picture, folder or text that cannot be used
    ├── WeightsError                 weights that are missing, damaged, or of another network
    ├── TrainingError                a training that cannot start or go on
    │   └── DivergedError            a loss term became NaN or infinite; names the step and the term
    ├── ExportError                  an artifact that could not be made
    │   ├── UnsupportedOpsError      it needs operators outside the builtin set
    │   └── VerificationError        it was made, executed, and is not equal to the Keras model
    ├── ServingError                 a request that a server did not answer as asked; has HTTP's status
    └── StorageError                 the disk is full, the place is read-only, the path is of the wrong kind

A message says what was expected, what was received, and what to do next.
"""

import difflib
import errno
import re
from collections.abc import Iterable
from pathlib import Path


class KerasModelsError(Exception):
    """Root of all errors raised on purpose by kerasmodels."""

    exit_code = 1


class UsageError(KerasModelsError, ValueError):
    """The request itself is wrong: nothing was read or written."""

    exit_code = 2


class DataError(KerasModelsError, ValueError):
    """Input data that cannot be used."""


class WeightsError(KerasModelsError):
    """Weights that are missing, damaged, or made for another network."""


class TrainingError(KerasModelsError):
    """A training that cannot start or go on."""


class DivergedError(TrainingError):
    """A loss term became NaN or infinite.

    Attributes:
        step: 1-based number of the training step whose value was not finite.
        term: name of the loss term.
    """

    def __init__(self, step: int, term: str, value: float, advice: str):
        self.step, self.term, self.value = step, term, value
        super().__init__(f"training diverged: {term} is {value} at step {step}. {advice}")


class ExportError(KerasModelsError):
    """An artifact that could not be made."""


class UnsupportedOpsError(ExportError):
    """The artifact needs operators that its runtime does not have built in."""


class VerificationError(ExportError):
    """The artifact ran, and its results differ from the Keras model's beyond tolerance."""


class ServingError(KerasModelsError):
    """A request that a server did not answer as asked.

    Attributes:
        status: what HTTP calls it, such as 404 or 429.
    """

    def __init__(self, status: int, message: str):
        self.status = status
        super().__init__(message)


class StorageError(KerasModelsError, OSError):
    """Files that cannot be written where they were asked for."""

    # OSError.__str__ would print errno tuples.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def unknown_name(kind: str, received: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not one of `known`, with the closest match if there is one."""
    names = sorted(known)
    close = difflib.get_close_matches(received, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names) if names else "none"
    return UsageError(f"unknown {kind} {received!r}.{hint} Known: {listed}.")


def storage_error(path: str | Path, error: OSError) -> StorageError:
    """`error`, met while writing `path`, said in words a user can act on."""
    if error.errno == errno.ENOSPC:
        why = "the disk is full. Free some space or choose another place"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        why = "the place is not writable. Choose another place or change its permissions"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        why = "a file is where a folder is needed. Move it or choose another place"
    elif error.errno == errno.EISDIR:
        why = "it is a folder. Name a file"
    else:
        why = f"{error.strerror or error}"
    return StorageError(f"cannot write {path}: {why}.")


_MEMORY = "Use smaller pictures, a smaller batch, or a machine with more memory."
_UNTOLD = re.compile(
    r"Graph execution error:|Detected at node|<stack traces unavailable>|Stack trace for op|Hint: |"
    r"\s+File |\s*\[\[|\s*\[Op:|\d+ root error|\s*\(\d+\) |\s*$"
)
"""Lines of a message of TensorFlow's that do not say what happened."""


def graph_error(error: BaseException, memory: str = _MEMORY) -> KerasModelsError | None:
    """What happened inside a TensorFlow graph, where Python's own errors keep only their names and texts.

    Args:
        error: any; None comes back unless it is TensorFlow's, or the memory's end.
        memory: what to do about the memory's end.

    Returns:
        The error of ours that a data stream raised; else one with the cause, without the graph's frames.
    """
    if isinstance(error, MemoryError):
        return KerasModelsError(f"out of memory. {memory}{f' What failed: {error}.' if str(error) else ''}")
    if all(kind.__name__ != "OpError" for kind in type(error).__mro__):
        return None
    message = str(getattr(error, "message", error))
    ours = re.search(r"(\w+Error): (.*?)\s*(\nTraceback \(most recent call last\)|\Z)", message, re.DOTALL)
    known = globals().get(ours[1]) if ours else None
    if ours and isinstance(known, type) and issubclass(known, KerasModelsError):
        return known(ours[2])
    exhausted = re.search(r"OOM when allocating.*|.*(Out of memory|MemoryError|bad_alloc).*", message)
    if exhausted or type(error).__name__ == "ResourceExhaustedError":
        return KerasModelsError(
            f"out of memory. {memory}{f' What failed: {exhausted[0].strip()}.' if exhausted else ''}"
        )
    lines = [line for line in message.splitlines() if not _UNTOLD.match(line)]
    asserted = re.match(r"assertion failed: \[(.*?)[.\s]*\]", (lines or [""])[0])
    if asserted:
        return KerasModelsError(f"{asserted[1]}.")
    cause = re.sub("^Error in user-defined function passed to .*? with iterator: [^ ]*: ", "", (lines or [message])[0])
    node = re.search(r"Detected at node (\S+)", message)
    where = f" (in {node[1]})" if node else ""
    return KerasModelsError(
        f"TensorFlow failed{where}: {cause.strip()}. This is a fault of kerasmodels or of a model of your own; --debug "
        "shows where."
    )
