"""Training and beams of the encoder-decoder against PyTorch, scoring of phrase tables, LiteRT steps.

    python benchmarks/encoder_decoder.py            # some minutes
    python benchmarks/encoder_decoder.py --quick    # does it work?

Training (64 pairs of 20 tokens) and beams of 5 are of the paper's sizes, with random weights, in turns with PyTorch and
with Keras' own GRU; the table and LiteRT are of the preset. Times are CPU seconds of one thread, which do not depend on
what else the machine does. That memory stays is measured on a million lines with a small network.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np
from interleaved import Contestant, Result, megabytes, peer_python, race

from kerasmodels import storage
from kerasmodels.apps import provenance

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "encoder_decoder.json"
BUILD = HERE.parent / "build"
REQUIREMENTS = ("torch==2.13.0", "numpy")
PRESET = "multi30k"


def races(python: Path, rounds: int, quick: bool) -> dict[str, list[Result]]:
    """Each task's contestants, in turns."""
    ours = Path(sys.executable), HERE / "encoder_decoder_ours.py"
    theirs = python, HERE / "encoder_decoder_torch.py"
    paths = {"PYTHONPATH": str(HERE.parent)}
    train = {"task": "train", "batch": 4 if quick else 64, "length": 20}
    asked = {
        "train": [
            Contestant("kerasmodels", *ours, {**train, "network": "ours"}, paths),
            Contestant("Keras GRU", *ours, {**train, "network": "keras", "reset_after": True}, paths),
            Contestant("Keras GRU, reset before", *ours, {**train, "network": "keras", "reset_after": False}, paths),
            Contestant("PyTorch", *theirs, train),
        ]
    }
    for batch in (1, 16):
        decode = {"task": "decode", "batch": batch, "length": 5 if quick else 20}
        asked[f"decode {batch}"] = [
            Contestant("kerasmodels", *ours, decode, paths),
            Contestant("PyTorch", *theirs, decode),
            Contestant("PyTorch int8", *theirs, {**decode, "int8": True}),
        ]
    return {name: race(contestants, rounds, 1, 1.0, _say) for name, contestants in asked.items()}


def tokens_per_second(result: Result) -> float | None:
    """Of CPU time: the median of its turns."""
    if not result.turns:
        return None
    per_call = sorted(turn.cpu / len(turn.seconds) for turn in result.turns)
    return float(result.facts["tokens"] / per_call[len(per_call) // 2])


def tables(lines: int, many: int) -> dict[str, Any]:
    """Lines of a phrase table per CPU second with the preset, and how memory grows with a hundred times the lines."""
    from kerasmodels.models.rnn_encoder_decoder import FAMILY, Config, RNNEncoderDecoder
    from kerasmodels.tasks import phrases
    from kerasmodels.training import train

    model: Any = RNNEncoderDecoder.from_preset(PRESET)
    random = np.random.default_rng(0)
    sides = [
        [word.strip("\u2581#") or "a" for word in getattr(model, f"{side}_vocabulary").words() if word.strip()]
        for side in ("source", "target")
    ]

    def table(path: Path, count: int) -> Path:
        with path.open("w", encoding="utf-8") as file:
            for begin in range(0, count, 10_000):
                size = min(10_000, count - begin)
                words = [random.choice(side, (size, 7)) for side in sides]
                lengths = random.integers(1, 8, (size, 2))
                for row in range(size):
                    texts = (" ".join(side[row, : lengths[row, i]]) for i, side in enumerate(words))
                    file.write(" ||| ".join((*texts, "0.5 0.25 0.5 0.125", "0-0", "3 4 2")) + "\n")
        return path

    def score(path: Path, **trained: Any) -> float:
        options = phrases.PhrasesOptions(inputs=(path,), do="score", out=path.with_suffix(".out"), **trained)
        begin = time.process_time()
        FAMILY.task.run(options)
        return time.process_time() - begin

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        score(table(home / "first.txt", 64), preset=PRESET)
        seconds = score(table(home / "table.txt", lines), preset=PRESET)
        (home / "pairs.tsv").write_text(
            "".join(f"{random.choice(sides[0])} a\t{random.choice(sides[1])} b\n" for _ in range(200))
        )
        config = Config(
            pairs=home / "pairs.tsv", units=8, rank=8, maxout=8, source_words=100, target_words=100, batch=4, steps=1
        )
        train(FAMILY, config, home / "run", preview_every=0, save_every=1, progress=False)
        score(table(home / "few.txt", max(2048, many // 100)), run=home / "run")
        before = megabytes("VmHWM")
        small = score(table(home / "many.txt", many), run=home / "run")
        after = megabytes("VmHWM")
    return {
        "lines": lines,
        "lines_per_cpu_second": round(lines / seconds),
        "many_lines": many,
        "many_lines_per_cpu_second": round(many / small),
        "peak_mb_before": round(before, 1),
        "peak_mb_after": round(after, 1),
    }


def litert(calls: int) -> dict[str, Any]:
    """CPU milliseconds of a step of the preset's decoder in LiteRT, one thread, and size, by precision."""
    from ai_edge_litert.interpreter import Interpreter

    from kerasmodels.export import export_servable
    from kerasmodels.models.rnn_encoder_decoder import FAMILY, RNNEncoderDecoder

    model: Any = RNNEncoderDecoder.from_preset(PRESET)
    servable, runners, found = FAMILY.servables(model)["step"], {}, {}
    example = servable.example(servable.dims, 0)
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("fp32", "fp16", "dynamic", "int8"):
            out = Path(folder) / precision
            export_servable(servable, "step", out, formats=["litert"], precision=precision)
            (path,) = out.rglob("*.tflite")
            runners[precision] = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
            found[precision] = {"bytes": path.stat().st_size}
        times: dict[str, list[float]] = {name: [] for name in runners}
        for _ in range(5):
            for name, runner in runners.items():
                runner(**example)
                begin = time.process_time()
                for _ in range(calls):
                    runner(**example)
                times[name].append(1000 * (time.process_time() - begin) / calls)
    return {name: {"cpu_ms": round(sorted(times[name])[2], 3), **found[name]} for name in runners}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4, help="turns of each contestant")
    parser.add_argument("--lines", type=int, default=1_000_000, help="of the table whose memory is measured")
    parser.add_argument("--python", type=Path, help="an interpreter that has torch; by default one is installed")
    parser.add_argument("--quick", action="store_true", help="small, another result file")
    options = parser.parse_args(arguments)
    python = options.python or peer_python(BUILD / "peers_torch", REQUIREMENTS, _say)
    report: dict[str, Any] = {
        "measured": provenance.now(),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "threads": 1,
        "load": list(os.getloadavg()),
        "quick": options.quick,
        "races": {},
        "claims": [],
    }
    rates: dict[str, dict[str, float | None]] = {}
    for name, results in races(python, 1 if options.quick else options.rounds, options.quick).items():
        rates[name] = {result.name: tokens_per_second(result) for result in results}
        report["races"][name] = [
            {**result.to_dict(), "tokens_per_cpu_second": round(rate) if rate else None}
            for result, rate in zip(results, rates[name].values(), strict=True)
        ]
        for result, rate in zip(results, rates[name].values(), strict=True):
            print(f"{name:10} {result.name:26} {result.error or f'{rate:9.1f} tokens per CPU second'}")

    def claim(text: str, task: str, peers: Sequence[str], least: float) -> None:
        ours, theirs = rates[task]["kerasmodels"], [r for peer in peers if (r := rates[task][peer])]
        if ours and theirs:
            ratio = ours / max(theirs)
            report["claims"].append({"claim": text, "measured": round(ratio, 3), "holds": ratio >= least})
            print(f"{text}: {ratio:.2f} ({'holds' if ratio >= least else 'DOES NOT HOLD'})")

    claim("training: 1.2 times Keras' GRU", "train", ("Keras GRU", "Keras GRU, reset before"), 1.2)
    claim("training: ahead of PyTorch", "train", ("PyTorch",), 1.0)
    for task, count in (("decode 1", "one text"), ("decode 16", "16 texts")):
        claim(f"beams of 5, {count}: 3 times PyTorch", task, ("PyTorch",), 3.0)
        claim(f"beams of 5, {count}: not behind PyTorch's int8", task, ("PyTorch int8",), 1.0)
    report["litert_step"] = litert(20 if options.quick else 200)
    print(report["litert_step"])
    report["table"] = tables(256 if options.quick else 4096, 20_000 if options.quick else options.lines)
    print(report["table"])
    out = BUILD / "encoder_decoder.quick.json" if options.quick else RESULT
    _say(f"wrote {storage.write_json(out, report)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
