"""Kills trainings of every family at random moments, resumes them, and compares their end with one that was left alone.

Run by test_kills.py in a process of its own: `python -m tests.training.kills COUNT SEED FOLDER [CASE ...]`, of all
cases if none is named. Prints JSON. Each training is a fork of this process, which has imported everything and started
nothing, so that it begins at once.
"""

import dataclasses
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels import registry, storage
from kerasmodels.training import checkpoint, train
from tests import cases

STEPS = 6
OPTIONS: dict[str, Any] = {"save_every": 1, "preview_every": 2, "log_every": 2, "progress": False}


def _fork(family: Any, config: Any, folder: Path) -> int:
    """Train, or go on, in a process of its own; its number."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    try:
        log = os.open(folder.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        begun = (folder / "run.json").exists()
        train(family, None if begun else config, folder, resume=begun, **({"progress": False} if begun else OPTIONS))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _killed(number: int, after: float, folder: Path, writing: bool) -> tuple[bool, str]:
    """Wait, then kill; with `writing`, when a file is half written next. Whether it still ran, and what it did."""
    deadline, doing = time.monotonic() + after, "between"
    while time.monotonic() < deadline or (writing and doing == "between"):
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            if status:
                raise AssertionError(f"a training failed:\n{folder.with_suffix('.txt').read_text()[-3000:]}")
            return False, ""
        if time.monotonic() >= deadline:
            parts = [path for path in (*folder.glob(".*.part"), *folder.glob("*/.*.part"))]
            doing = parts[0].name.removeprefix(".")[:4] if parts else "between"
        time.sleep(0.0002 if time.monotonic() >= deadline else 0.005)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return True, doing


def _compare(folder: Path, whole: Path) -> None:
    """Every bit that a training leaves, but times and TensorBoard's files."""
    ours, theirs = (checkpoint.read(f / "checkpoints" / f"step-{STEPS:06d}.npz") for f in (folder, whole))
    for found, wanted in (
        (ours.arrays, theirs.arrays),
        (storage.load_npz(folder / "weights.npz"), storage.load_npz(whole / "weights.npz")),
    ):
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)
    for key in ("step", "config", "python_random", "numpy_random", "learning_rates"):
        assert ours.about[key] == theirs.about[key], key
    cards = [json.loads((f / "run.json").read_text()) for f in (folder, whole)]
    assert [card["state"] for card in cards] == ["done", "done"]
    assert "pid" not in cards[0]
    steps = [[line.partition(",")[0] for line in (f / "log.csv").read_text().splitlines()] for f in (folder, whole)]
    assert steps[0] == steps[1]
    names = [
        {str(p.relative_to(f)) for p in f.rglob("*") if p.is_file() and p.parent.name != "tensorboard"}
        for f in (folder, whole)
    ]
    assert names[0] == names[1], names[0] ^ names[1]
    for name in names[1]:
        if name.startswith("samples"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def main(count: int, seed: int, place: Path, named: list[str]) -> None:
    draws = random.Random(seed)
    keys = [key for key in named or cases.names() if registry.row(cases.family_of(key)).trains]
    subjects = {}
    for key in keys:
        case, family = cases.case_of(key), registry.family(cases.family_of(key))
        data, whole = place / f"{key.replace(':', '_')}-data", place / f"{key.replace(':', '_')}-whole"
        data.mkdir()
        config = dataclasses.replace(case.config, steps=STEPS, **case.data(data))
        began = time.monotonic()
        alive, _ = _killed(_fork(family, config, whole), 600.0, whole, False)
        assert not alive, f"{key} takes more than ten minutes"
        subjects[key] = (family, config, whole, time.monotonic() - began)
        print(key, f"{time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    kills, compared, moments = dict.fromkeys(keys, 0), dict.fromkeys(keys, 0), {}
    running: dict[str, Path] = {}
    while sum(kills.values()) < count or running:
        # The one that was killed the least is next; in the end all are brought to their end.
        enough = sum(kills.values()) >= count
        key = min(running if enough else keys, key=lambda k: (kills[k], draws.random()))
        family, config, whole, seconds = subjects[key]
        folder = running.setdefault(key, place / f"{key.replace(':', '_')}-{compared[key]}")
        after = 1e9 if enough else draws.uniform(0.2, 1.0) * seconds
        alive, doing = _killed(_fork(family, config, folder), after, folder, draws.random() < 0.5)
        if alive:
            kills[key] += 1
            moments[doing] = moments.get(doing, 0) + 1
        else:
            _compare(folder, whole)
            compared[key] += 1
            del running[key]
        print(key, doing or "done", kills[key], file=sys.stderr, flush=True)
    print(json.dumps({"kills": kills, "compared": compared, "moments": moments}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
