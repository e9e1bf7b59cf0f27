"""Training steps of CycleGAN and WGAN against PyTorch, in one run.

    python benchmarks/gan_vs_torch.py            # some minutes; leave the machine alone meanwhile
    python benchmarks/gan_vs_torch.py --quick    # does it work?

CycleGAN at 128 pixels (6 blocks) and 256 (9 blocks), one picture of each kind; WGAN at 64 pixels, 64 pictures, five
updates of the critic and one of the generator. Networks, losses and optimizers are the papers' on both sides.
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
RESULT = HERE / "results" / "gan_vs_torch.json"
BUILD = HERE.parent / "build"
PEERS = BUILD / "peers_torch"
REQUIREMENTS = ("torch==2.13.0", "numpy")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON file."""
    parser = flags(__doc__, RESULT, 4, "64 pixels, 2 rounds")
    parser.add_argument("--python", type=Path, help="an interpreter that has torch; by default one is installed")
    options = parser.parse_args(arguments)
    rounds = 2 if options.quick else options.rounds
    python = options.python or peer_python(PEERS, REQUIREMENTS, _say)
    sizes = {"cyclegan 64": (64, 1)} if options.quick else {"cyclegan 128": (128, 6), "cyclegan 256": (256, 9)}
    jobs: dict[str, dict[str, Any]] = {
        name: {"task": "cyclegan", "size": size, "blocks": blocks} for name, (size, blocks) in sizes.items()
    }
    jobs["wgan 64"] = {"task": "wgan", "batch": 8 if options.quick else 64}
    report: dict[str, Any] = {
        **circumstances(options, rounds),
        "steps": {},
        "claims": [],
    }
    for name, job in jobs.items():
        contestants = [Contestant("PyTorch", python, HERE / "gan_torch.py", job)]
        if job["task"] == "cyclegan":
            last = {**job, "channels_last": True}
            contestants.append(Contestant("PyTorch, channels last", python, HERE / "gan_torch.py", last))
        contestants += [
            Contestant(
                f"kerasmodels, {precision}",
                Path(sys.executable),
                HERE / "gan_ours.py",
                {**job, "precision": precision},
                {"PYTHONPATH": str(HERE.parent)},
            )
            for precision in ("float32", "mixed_bfloat16")
        ]
        results = race(contestants, rounds, options.threads, 0.5, _say)
        report["steps"][name] = [result.to_dict() for result in results]
        for result in results:
            time = result.error or f"{1000 * (result.median or 0):9.1f} ms, {result.clean} clean rounds"
            print(f"{name:14} {result.name:28} {time}")
        peers = [r.median for r in results if r.name.startswith("PyTorch") and r.median]
        ours = next(r.median for r in results if r.name == "kerasmodels, float32")
        if peers and ours:
            ratio = min(peers) / ours
            claim = {"claim": f"{name}: a step in float32 is faster than PyTorch's", "measured": round(ratio, 3)}
            report["claims"].append({**claim, "holds": ratio > 1})
            print(f"{claim['claim']}: {ratio:.2f} times ({'holds' if ratio > 1 else 'DOES NOT HOLD'})")
    out = options.out or (BUILD / "gan_vs_torch.quick.json" if options.quick else RESULT)
    _say(f"wrote {storage.write_json(out, report)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
