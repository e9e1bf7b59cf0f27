"""What the person at the terminal sees, on stderr: a bar if it is a terminal, plain lines if it is a file or a pipe."""

import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class Display(Protocol):
    """Shows the progress of one training; a context manager around it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def advance(self, step: int) -> None:
        """`step` steps are done."""

    def report(self, step: int, values: Mapping[str, float], examples_per_second: float) -> None:
        """The means of a log interval; the speed is NaN if the interval was too short to tell."""

    def say(self, message: str) -> None:
        """One line."""


def display(wanted: bool | None, start: int, steps: int) -> Display:
    """True: a bar; False: nothing but warnings; None: a bar on a terminal, else plain lines."""
    if wanted is False:
        return _Silent()
    if wanted or sys.stderr.isatty():
        return _Bar(start, steps)
    return _Lines(start, steps)


def format_values(values: Mapping[str, float]) -> str:
    """`loss 12.3  content 4.56`."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


class _Silent:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def report(self, step: int, values: Mapping[str, float], examples_per_second: float) -> None:
        pass

    def say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)


class _Lines(_Silent):
    def __init__(self, start: int, steps: int):
        self.start, self.steps = start, steps
        self.began = time.monotonic()
        self.printed = -SECONDS_BETWEEN_LINES

    def report(self, step: int, values: Mapping[str, float], examples_per_second: float) -> None:
        now = time.monotonic()
        if now - self.printed < SECONDS_BETWEEN_LINES and step < self.steps:
            return
        self.printed = now
        left = (now - self.began) / max(step - self.start, 1) * (self.steps - step)
        self.say(
            f"step {step}/{self.steps}  {format_values(values)}{_speed(examples_per_second)}  {_clock(left)} to go"
        )


class _Bar(_Silent):
    def __init__(self, start: int, steps: int):
        self.bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task("", total=steps, completed=start, values="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, step: int) -> None:
        self.bar.update(self.task, completed=step)

    def report(self, step: int, values: Mapping[str, float], examples_per_second: float) -> None:
        self.bar.update(self.task, values=f"{format_values(values)}{_speed(examples_per_second)}")

    def say(self, message: str) -> None:
        self.bar.console.print(message, markup=False, highlight=False)


def _speed(examples_per_second: float) -> str:
    return "" if math.isnan(examples_per_second) else f"  {examples_per_second:.1f} examples/s"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
