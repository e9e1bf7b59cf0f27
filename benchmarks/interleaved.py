"""Time contestants side by side: each lives in a process of its own and is asked in turn, round after round.

Own processes keep the thread pools of different frameworks apart. Interleaved rounds let whatever else the machine does
hit all alike. A contestant that waits must be idle, and the machine too: both are measured, turn by turn.

Workers may run in another Python environment, so this module needs the standard library only.
"""

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

PAUSE = 0.15
"""Seconds between turns, in which thread pools stop spinning."""
FOREIGN = 0.1
"""A turn is contended if other processes took more than this share of the cores the contestant may use."""

Job = dict[str, Any]
Prepared = tuple[Callable[[], object], dict[str, Any]]


# --- in a worker ------------------------------------------------------------------------------------------------------


def serve(prepare: Callable[[Job], Prepared]) -> None:
    """Read a job from standard input, prepare it, then make timed calls whenever asked to, until the input ends.

    Args:
        prepare: job -> what to time, and facts to report (JSON values). It is called once before it is timed.
    """
    requests, replies = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    job = json.loads(requests.readline())
    _stay_on_cores(job["threads"])

    def reply(value: Any) -> None:
        print(json.dumps(value), file=replies, flush=True)

    try:
        call, facts = prepare(job)
        call()
    except Exception as error:
        reply({"error": f"{type(error).__name__}: {error}".strip()})
        return
    reply({"facts": facts})
    for line in requests:
        request = json.loads(line)
        begin_cpu, begin_wall, seconds = time.process_time(), time.perf_counter(), []
        for _ in range(request["calls"]):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        wall, end_cpu = time.perf_counter() - begin_wall, time.process_time()
        reply({"seconds": seconds, "wall": wall, "cpu_begin": begin_cpu, "cpu_end": end_cpu})


def megabytes(name: str) -> float:
    """What this process holds now (VmRSS) or has held at most (VmHWM), MB (Linux)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name))


def _stay_on_cores(count: int) -> None:
    """On a larger machine too, nobody gets more cores than threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


# --- in the driver ----------------------------------------------------------------------------------------------------


def flags(doc: str | None, result: Path, rounds: int, quick: str, threads: int = 2) -> argparse.ArgumentParser:
    """The flags that every race has.

    Args:
        doc: of the benchmark; its first line is the description.
        result: the file that is written by default, in `results` beside this module.
        rounds, threads: the defaults.
        quick: what `--quick` leaves of it.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each contestant")
    parser.add_argument("--threads", type=int, default=threads, help="and cores, for each contestant")
    parser.add_argument("--quick", action="store_true", help=f"{quick}, another result file")
    parser.add_argument("--out", type=Path, help=f"default: benchmarks/results/{result.name}")
    return parser


def circumstances(options: argparse.Namespace, rounds: int) -> dict[str, Any]:
    """When, where and how a race was run, for its report."""
    from kerasmodels.apps import provenance

    return {
        "measured": provenance.now(),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "threads": options.threads,
        "rounds": rounds,
        "quick": options.quick,
    }


def peer_python(folder: Path, requirements: Sequence[str], say: Callable[[str], None]) -> Path:
    """The interpreter of an environment that has the peers, made in `folder` if missing."""
    python, mark, wanted = folder / "bin" / "python", folder / ".installed", "\n".join(requirements)
    if not mark.is_file() or mark.read_text() != wanted:
        say(f"installing {', '.join(requirements)} into {folder} (some minutes)")
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        mark.write_text(wanted)
    return python


@dataclass(frozen=True)
class Contestant:
    """What to time.

    Args:
        name: unique in its race.
        python: interpreter of the worker.
        script: the worker, which calls `serve`.
        job: for its `prepare`; `threads` is added.
        environment: variables to set for it.
    """

    name: str
    python: Path
    script: Path
    job: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Turn:
    """The timed calls of one contestant in one round.

    Attributes:
        seconds: of each call, wall time.
        cpu: seconds of all its threads, over the turn.
        cores: cores it kept busy.
        foreign: cores that other processes (or the host) took meanwhile; None if the system does not tell.
        contended: whether that was too much for the times to mean anything.
    """

    seconds: list[float]
    cpu: float
    cores: float
    foreign: float | None
    contended: bool


@dataclass
class Result:
    """All turns of one contestant, or why it could not run."""

    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    idle_cpu: float = 0.0
    error: str = ""

    def telling(self) -> list[Turn]:
        """The clean turns; all if none was clean."""
        return [turn for turn in self.turns if not turn.contended] or self.turns

    def times(self) -> list[float]:
        """Seconds of each call of the telling turns."""
        return [s for turn in self.telling() for s in turn.seconds]

    @property
    def clean(self) -> int:
        """Number of rounds in which nobody else took the cores."""
        return sum(not turn.contended for turn in self.turns)

    @property
    def median(self) -> float | None:
        """Seconds."""
        return statistics.median(self.times()) if self.turns else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, times in milliseconds."""
        if not self.turns:
            return {"name": self.name, "error": self.error, **self.facts}
        times = self.times()
        return {
            "name": self.name,
            **self.facts,
            "median_ms": round(1000 * statistics.median(times), 3),
            "min_ms": round(1000 * min(times), 3),
            "cpu_ms": round(1000 * statistics.median(turn.cpu / len(turn.seconds) for turn in self.telling()), 3),
            "clean_rounds": self.clean,
            "idle_cpu_s": round(self.idle_cpu, 2),
            "rounds": [
                {
                    "ms": [round(1000 * s, 3) for s in turn.seconds],
                    "cores": round(turn.cores, 2),
                    "other_processes_cores": None if turn.foreign is None else round(turn.foreign, 2),
                    "contended": turn.contended,
                }
                for turn in self.turns
            ],
        }


def race(
    contestants: Sequence[Contestant], rounds: int, threads: int, turn_seconds: float, say: Callable[[str], None]
) -> list[Result]:
    """Start all contestants, then let each have its turn in every round.

    Args:
        contestants: what to time.
        rounds: number of turns of each.
        threads: each may use, and cores.
        turn_seconds: about how long a turn lasts; at least one call is timed in it.
        say: called with one line of text as work proceeds.
    """
    results = {c.name: Result(c.name) for c in contestants}
    with ExitStack() as stack:
        workers: dict[str, _Worker] = {}
        for contestant in contestants:
            say(f"starting {contestant.name}")
            worker = stack.enter_context(_Worker(contestant, threads))
            try:
                results[contestant.name].facts = worker.read()["facts"]
                # The first calls are slow; the second tells how many fit into a turn.
                worker.calls = max(1, round(turn_seconds / worker.turn(2, threads).seconds[-1]))
                workers[contestant.name] = worker
            except WorkerError as error:
                results[contestant.name].error = str(error)
                say(f"{contestant.name} cannot run: {error}")
        order = list(workers)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}, {len(order)} contestants")
            shift = number % max(1, len(order))
            # Another one goes first each time: none always runs in the shadow of the same neighbor.
            for name in order[shift:] + order[:shift]:
                time.sleep(PAUSE)
                result = results[name]
                try:
                    result.turns.append(workers[name].turn(workers[name].calls, threads))
                except WorkerError as error:
                    result.error = str(error)
                    order.remove(name)
                result.idle_cpu = workers[name].idle_cpu
    return list(results.values())


class WorkerError(Exception):
    """A contestant failed."""


class _Worker:
    def __init__(self, contestant: Contestant, threads: int):
        self.calls = 1
        self.idle_cpu = 0.0
        self._cpu_end: float | None = None
        self._process = subprocess.Popen(
            [str(contestant.python), str(contestant.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # One count for every pool there is; the rest is each framework's default.
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **contestant.environment},
        )
        self._tail = _Tail(self._process.stderr)
        self._send({**contestant.job, "threads": threads})

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()

    def _send(self, value: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            print(json.dumps(value), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise WorkerError(self._tail.last()) from None

    def read(self) -> dict[str, Any]:
        """The next reply."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"the process ended with exit code {self._process.wait()}: {self._tail.last()}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def turn(self, calls: int, threads: int) -> Turn:
        """Let it make some timed calls while all others wait."""
        before = _busy_seconds()
        self._send({"calls": calls})
        reply = self.read()
        after = _busy_seconds()
        cpu, wall = reply["cpu_end"] - reply["cpu_begin"], reply["wall"]
        if self._cpu_end is not None:
            self.idle_cpu += reply["cpu_begin"] - self._cpu_end
        self._cpu_end = reply["cpu_end"]
        foreign = None if before is None or after is None else max(0.0, after - before - cpu) / wall
        # Without the system's word, go by what the contestant itself got.
        contended = foreign > FOREIGN * threads if foreign is not None else cpu / wall < 0.8 * threads
        return Turn(reply["seconds"], cpu, cpu / wall, foreign, contended)


class _Tail:
    """The last lines of a stream, read in the background so that it never blocks the writer."""

    def __init__(self, stream: IO[str] | None):
        self._lines: collections.deque[str] = collections.deque(maxlen=6)
        self._thread = threading.Thread(target=self._lines.extend, args=(stream or (),), daemon=True)
        self._thread.start()

    def last(self) -> str:
        self._thread.join(1)
        return " ".join(line.strip() for line in self._lines)


def _busy_seconds() -> float | None:
    """CPU seconds that all processes, and the host of a virtual machine, have used since boot; None if unknown."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, interrupt, soft_interrupt, steal = map(int, fields)
    return (user + nice + system + interrupt + soft_interrupt + steal) / os.sysconf("SC_CLK_TCK")
