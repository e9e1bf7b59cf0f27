"""Training DQN on Pong against Stable-Baselines3 and a loop as CleanRL's, in one run.

    python benchmarks/dqn_vs_torch.py            # some minutes; leave the machine alone meanwhile
    python benchmarks/dqn_vs_torch.py --quick    # does it work?

Nature's network, batches of 32, an update after each four steps of the game, epsilon 0.1. A call is 100 steps.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

from interleaved import Contestant, circumstances, flags, peer_python, race

from kerasmodels import storage

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "dqn_vs_torch.json"
BUILD = HERE.parent / "build"
PEERS = BUILD / "peers_dqn"
REQUIREMENTS = ("torch==2.13.0", "stable-baselines3==2.9.2", "gymnasium", "ale-py", "opencv-python-headless", "numpy")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON file."""
    parser = flags(__doc__, RESULT, 5, "2 rounds", threads=1)
    parser.add_argument("--python", type=Path, help="an interpreter that has the peers; by default they are installed")
    options = parser.parse_args(arguments)
    rounds = 2 if options.quick else options.rounds
    python = options.python or peer_python(PEERS, REQUIREMENTS, _say)
    job: dict[str, Any] = {"replay": 10_000, "starts": 1000, "steps": 100}
    contestants = [
        Contestant("Stable-Baselines3", python, HERE / "dqn_torch.py", {**job, "task": "sb3"}),
        Contestant("CleanRL's loop", python, HERE / "dqn_torch.py", {**job, "task": "cleanrl"}),
    ]
    contestants += [
        Contestant(
            f"kerasmodels, {precision}",
            Path(sys.executable),
            HERE / "dqn_ours.py",
            {**job, "precision": precision},
            {"PYTHONPATH": str(HERE.parent)},
        )
        for precision in ("float32", "mixed_bfloat16")
    ]
    results = race(contestants, rounds, options.threads, 2.0, _say)
    rows = []
    for result in results:
        row = result.to_dict()
        if result.turns:
            row["steps_per_second"] = round(job["steps"] / (result.median or 1), 1)
            row["steps_per_cpu_second"] = round(1000 * job["steps"] / row["cpu_ms"], 1)
        rows.append(row)
        print({k: v for k, v in row.items() if k not in ("rounds", "versions")})
    report: dict[str, Any] = {
        **circumstances(options, rounds),
        "training": rows,
        "claims": [],
    }
    ours, peers = rows[2], [row for row in rows[:2] if "steps_per_cpu_second" in row]
    if peers and "steps_per_cpu_second" in ours:
        for unit in ("steps_per_second", "steps_per_cpu_second"):
            ratio = ours[unit] / max(peer[unit] for peer in peers)
            claim = {"claim": f"float32: three times the {unit} of either", "measured": round(ratio, 3)}
            report["claims"].append({**claim, "holds": ratio >= 3})
            print(f"{claim['claim']}: {ratio:.2f} times ({'holds' if ratio >= 3 else 'DOES NOT HOLD'})")
    out = options.out or (BUILD / "dqn_vs_torch.quick.json" if options.quick else RESULT)
    _say(f"wrote {storage.write_json(out, report)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
