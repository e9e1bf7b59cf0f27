"""What the verbs share: the outcome of a command, parsing into dataclasses, and a quiet TensorFlow."""

import contextlib
import dataclasses
import io
import math
import os
import re
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar

from kerasmodels import registry
from kerasmodels.errors import KerasModelsError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from kerasmodels.family import Family

T = TypeVar("T")

EVERYWHERE = (
    "Every command takes --json (one JSON object on stdout, all else on stderr) and --debug (traceback of an error)."
)


@dataclass(frozen=True)
class Outcome:
    """What a command found out or did.

    Args:
        result: what `--json` prints.
        shown: what people see instead; strings are printed as they are, so that they can be copied.
        exit_code: 0, or 1 if it failed or was not verified.
    """

    result: dict[str, Any]
    shown: Sequence["RenderableType"] = ()
    exit_code: int = 0


class HelpRequest(Exception):
    """The user asked for help, which is `str(self)`."""


def line(verb: str, argv: Sequence[str]) -> str:
    """The exact command, ready for a shell."""
    return shlex.join(["kerasmodels", verb, *argv])


def plain(value: Any) -> Any:
    """`value` in JSON's types; numbers that are not finite become null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return plain(value.tolist())
    return str(value)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> "Table":
    """A table of values as they are: brackets in them are no markup. None is an empty cell."""
    from rich.table import Table
    from rich.text import Text

    made = Table(*headers)
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    return made


def parse(options: type[T], argv: Sequence[str], prog: str, description: str, default: T | None = None) -> T:
    """The dataclass `options` filled from the command line; its field docstrings are the help.

    Raises:
        UsageError: the arguments do not fit.
        HelpRequest: they contain --help.
    """
    return _parsed(options, argv, prog, description, default, False)


def first_look(options: type[T], argv: Sequence[str]) -> T:
    """The dataclass `options` from the flags it knows; those it does not know, and --help, are for a later look.

    Raises:
        UsageError: the values of its own flags do not fit.
    """
    asked = [word for word in argv if word not in ("-h", "--help")]
    return _parsed(options, asked, "", "", None, True)[0]


def _parsed(
    options: type, argv: Sequence[str], prog: str, description: str, default: Any, return_unknown_args: Any
) -> Any:
    import tyro

    for flag, count in Counter(word.partition("=")[0] for word in argv if word.startswith("--")).items():
        if count > 1:
            raise UsageError(f"expected {flag} once, followed by all its values. Received: it {count} times.")
    written, complaint = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(written), contextlib.redirect_stderr(complaint):
            return tyro.cli(
                options,
                args=argv,
                prog=prog,
                description=f"{description}\n\n{EVERYWHERE}",
                config=(tyro.conf.OmitArgPrefixes,),
                default=tyro.MISSING_NONPROP if default is None else default,
                return_unknown_args=return_unknown_args,
            )
    except SystemExit as end:
        if not end.code:
            raise HelpRequest(written.getvalue()) from None
        # A config's own words, or the parser's.
        refused = end.__context__ if isinstance(end.__context__, UsageError) else None
        raise UsageError(str(refused) if refused else _unboxed(complaint.getvalue())) from None


def _unboxed(text: str) -> str:
    """The words of tyro's message as one line, without its title, box and colors."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [re.sub(r"[│╭╮╰╯─]", "", line).strip() for line in text.splitlines()]
    words = " ".join([line for line in lines if line.strip("-")][1:])
    words = re.sub(r"\s*For full helptext, (?:see|run):? (.*)$", r" See `\1`.", words)
    words = re.sub(r"invalid choice (.*) for argument '(-\S+)'\. Expected one of \((.*?),?\)\.", _choice, words)
    # A config's own words need no introduction.
    return re.sub(r"^Error parsing [\w-]+: (?=expected |unknown )", "", words)


def _choice(found: "re.Match[str]") -> str:
    """tyro's word on a choice in this project's form; None, which leaves a flag out, is no choice to name."""
    received, flag, listed = found.groups()
    choices = sorted({choice.strip(" '") for choice in listed.split(",")} - {"None"})
    return f"expected {flag} with one of {', '.join(choices)}. Received: {received}."


def with_group(options: type, group: str, fields: type, name: str) -> type:
    """The dataclass `options` with the flags of `fields` added, as a field and a group of the help called `group`."""
    return dataclasses.make_dataclass(
        name, [(group, fields, dataclasses.field(kw_only=True))], bases=(options,), frozen=True, kw_only=True
    )


def take_family(verb: str, argv: Sequence[str]) -> tuple[str, list[str]]:
    """The family that the arguments begin with, and the rest of them.

    Raises:
        UsageError: none, or an unknown one.
        HelpRequest: --help without a family, whose flags are therefore unknown.
    """
    usage = f"kerasmodels {verb} FAMILY"
    listed = "\n".join(f"  {row.name}  {row.line}" for row in registry.ROWS if verb != "train" or row.trains)
    if argv and argv[0] in ("-h", "--help"):
        raise HelpRequest(f"usage: {usage} [FLAGS]\n       {usage} --help shows its flags\n\nFamilies:\n{listed}\n")
    if not argv or argv[0].startswith("-"):
        raise UsageError(
            f"expected a family right after `{verb}`: {usage} [FLAGS]. "
            f"Received: {argv[0] if argv else 'nothing'!r}. Families: {', '.join(registry.names())}."
        )
    return registry.row(argv[0]).name, list(argv[1:])


def load_family(name: str) -> "Family":
    """Import a family and TensorFlow with it, without TensorFlow's banner.

    Raises:
        UsageError: no such family.
        KerasModelsError: TensorFlow cannot be imported.
    """
    registry.row(name)
    load_tensorflow()
    return registry.family(name)


def load_tensorflow() -> None:
    """Import TensorFlow and Keras, and find the GPUs, keeping back what that writes to stderr unless it fails.

    Raises:
        UsageError: KERAS_BACKEND asks for another backend.
        KerasModelsError: TensorFlow or Keras cannot be imported.
    """
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise UsageError(
            "expected Keras on TensorFlow, which the commands need. "
            f"Received: KERAS_BACKEND={os.environ['KERAS_BACKEND']!r}. Unset it for this command."
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    try:
        with _stderr_unless_failed():
            import keras
            import tensorflow as tf

            # Of this process alone: a keras.json may say otherwise.
            keras.config.set_image_data_format("channels_last")
            tf.config.list_physical_devices()
    except ImportError as error:
        raise KerasModelsError(
            f"TensorFlow or Keras cannot be imported ({error}). `kerasmodels check` says what is wrong."
        ) from error


@contextlib.contextmanager
def _stderr_unless_failed() -> Iterator[None]:
    """Hold back everything written to stderr, by C++ too, and give it out only if the block raises."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            os.write(real, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)


@contextlib.contextmanager
def only_result_on_stdout() -> Iterator[IO[str]]:
    """Yield the real stdout, while whatever else writes there, C++ and subprocesses included, reaches stderr."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(real), "w", encoding="utf-8") as stdout, contextlib.redirect_stdout(sys.stderr):
            yield stdout
    finally:
        os.dup2(real, 1)
        os.close(real)
