"""`kerasmodels VERB ...`: find the verb, run it, show its outcome, turn whatever happens into an exit code.

Exit codes: 0 done, 1 failed or not verified, 2 the request is wrong, 130 interrupted.
Importing this module imports no TensorFlow; each verb imports what it needs.
"""

import importlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from kerasmodels import __version__
from kerasmodels.apps.command import EVERYWHERE, HelpRequest, Outcome, only_result_on_stdout, plain
from kerasmodels.errors import KerasModelsError, graph_error, unknown_name

# verb -> its module in this folder, what it does
VERBS = {
    "list": ("families", "families, presets, what each can do"),
    "info": ("info", "one family: variants, flags, inputs and outputs, presets, experiments"),
    "run": ("run", "use a family on your files"),
    "train": ("train", "train a family on your files"),
    "export": ("export", "SavedModel, LiteRT and ONNX from a run or preset, each executed and compared"),
    "serve": ("serve", "an HTTP server for exported models"),
    "studio": ("studio", "the same with a page in the browser, for people"),
    "predict": ("predict", "ask a server, with retries and a deadline"),
    "reproduce": ("reproduce", "measure the paper's claims; numbers and pictures into results/"),
    "bench": ("bench", "time a family in every runtime"),
    "weights": ("weights", "get pretrained weights that training needs"),
    "check": ("doctor", "is this installation sound? what to do if not"),
    "completion": ("completion", "a script for shell completion: bash, zsh, fish"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # Names of files need not be Unicode, nor the terminal know all of it: what it cannot show is spelled out.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json, debug = "--json" in arguments, "--debug" in arguments
    arguments = [a for a in arguments if a not in ("--json", "--debug")]
    if as_json:
        with only_result_on_stdout() as stdout:
            outcome = _attempt(arguments, debug)
            text = json.dumps(plain(outcome.result), indent=2, allow_nan=False)
            _until_the_reader_leaves(lambda: print(text, file=stdout, flush=True))
    else:
        outcome = _attempt(arguments, debug)
        _until_the_reader_leaves(lambda: _show(outcome))
        if "error" in outcome.result:
            print(f"kerasmodels: {outcome.result['error']['message']}", file=sys.stderr)
    return outcome.exit_code


def _attempt(argv: list[str], debug: bool) -> Outcome:
    """The outcome of the command; an error is one too."""
    try:
        return _outcome(argv)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        message, code = _explained(error)
        return Outcome({"error": {"type": type(error).__name__, "message": message, "exit_code": code}}, (), code)


def _until_the_reader_leaves(write: Callable[[], None]) -> None:
    """Call `write`, which may find that whoever reads stdout (`| head`) has seen enough: no error of ours."""
    try:
        write()
    except BrokenPipeError:
        # Python would complain once more when it flushes what is left at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def _outcome(argv: list[str]) -> Outcome:
    if not argv or argv[0] in ("-h", "--help", "help"):
        return Outcome({"help": _help()}, [_help()], 0 if argv else 2)
    if argv[0] == "--version":
        return Outcome({"version": __version__}, [f"kerasmodels {__version__}"])
    if argv[0] not in VERBS:
        raise unknown_name("command", argv[0], VERBS)
    module, _ = VERBS[argv[0]]
    try:
        return importlib.import_module(f"kerasmodels.apps.{module}").main(argv[1:])
    except HelpRequest as request:
        return Outcome({"help": str(request)}, [str(request).rstrip()])


def _help() -> str:
    verbs = "\n".join(f"  {verb:<10} {line}" for verb, (_, line) in VERBS.items())
    return (
        "usage: kerasmodels COMMAND ...\n\n"
        "Classic deep-learning papers in today's Keras, trained with fit and shipped with proof.\n\n"
        f"Commands (`kerasmodels COMMAND --help` for each):\n{verbs}\n\n{EVERYWHERE}\n"
        "Exit codes: 0 done, 1 failed or not verified, 2 the request is wrong, 130 interrupted."
    )


def _show(outcome: Outcome) -> None:
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    # Piped tables should not be squeezed into rich's default of 80 columns.
    console = Terminal(width=None if sys.stdout.isatty() else 160, highlight=False)
    for item in outcome.shown:
        if isinstance(item, str):
            print(item)
        else:
            console.print(item)
    sys.stdout.flush()


def _explained(error: BaseException) -> tuple[str, int]:
    """What to tell the user, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted.", 130
    if isinstance(error, KerasModelsError):
        return str(error), error.exit_code
    if isinstance(getattr(error, "exit_code", None), int):
        return str(error), error.exit_code  # type: ignore[attr-defined]
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror, 1
    from_graph = graph_error(error)
    if from_graph is not None:
        return str(from_graph), from_graph.exit_code
    return (
        f"unexpected {type(error).__name__}: {error}\nThis is a fault of kerasmodels. Please report it with the output "
        "of the same command with --debug, and of `kerasmodels check`.",
        1,
    )


if __name__ == "__main__":
    sys.exit(main())
