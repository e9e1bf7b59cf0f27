"""Fast style transfer against PyTorch, in one run: inference of exported artifacts, and a training step.

    python benchmarks/fast_style_vs_torch.py --compile          # the full run; leave the machine alone meanwhile
    python benchmarks/fast_style_vs_torch.py --quick            # does it work?

The baseline of inference is ONNX Runtime executing the network of PyTorch's fast_neural_style example. See README.md.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# TensorFlow only builds networks and makes artifacts here; the timing happens in the workers.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np
from interleaved import Contestant, Result, circumstances, flags, peer_python, race

from kerasmodels import presets, storage
from kerasmodels.backbones import sources
from kerasmodels.data import write_image
from kerasmodels.errors import ExportError, VerificationError
from kerasmodels.export import export
from kerasmodels.models import fast_style

HERE = Path(__file__).resolve().parent
OURS, TORCH = HERE / "fast_style_ours.py", HERE / "fast_style_torch.py"
RESULT = HERE / "results" / "fast_style_vs_torch.json"
BUILD = HERE.parent / "build"
PEERS = BUILD / "peers"
REQUIREMENTS = ("torch==2.13.0", "onnx", "onnxruntime", "onnxscript", "numpy")

BASELINE = "PyTorch net, ONNX Runtime"
TRAINING_BASELINE = "PyTorch, float32"
ARCHITECTURE = ("channels", "blocks", "end_kernel", "normalization", "padding", "upsampling")
NETS = {
    "paper": fast_style.VARIANTS["paper"],
    "paper, PyTorch's architecture": dataclasses.replace(
        fast_style.VARIANTS["paper"], padding="reflect", upsampling="resize"
    ),
    "mobile": fast_style.VARIANTS["mobile"],
}
BATCH, SIDE = 4, 256


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON file."""
    parser = flags(__doc__, RESULT, 10, "128 pixels, 2 rounds, short turns")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides of the pictures, pixels")
    parser.add_argument("--preset", action="append", default=[], help="trained weights for the net of this shape")
    parser.add_argument("--compile", action="store_true", help="also torch.compile (needs a C++ compiler)")
    parser.add_argument("--only", choices=("inference", "training"), help="half of it")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.rounds = [128], 2
    if min(*options.sizes, options.rounds, options.threads) < 1 or any(side % 4 for side in options.sizes):
        parser.error("expected sizes that are multiples of 4, at least one round and one thread")
    out = options.out or (BUILD / "fast_style_vs_torch.quick.json" if options.quick else RESULT)

    nets = _nets(options.preset)
    python = peer_python(PEERS, REQUIREMENTS, _say)
    report: dict[str, Any] = {
        **circumstances(options, options.rounds),
        "weights": {name: preset or "random" for name, (_, preset) in nets.items()},
        "inference": {},
    }
    with tempfile.TemporaryDirectory(prefix="fast-style-") as temporary:
        folder = Path(temporary)
        if options.only != "training":
            peer_files, facts = _export_peer(python, folder, options)
            report["peer"] = facts
            ours = _export_ours(nets, options.sizes, folder)
            for side in options.sizes:
                contestants = _inference(python, side, peer_files, ours, folder, options.compile)
                rows = _rows(_race(contestants, options, f"{side}x{side}"), BASELINE)
                report["inference"][f"{side}x{side}"] = rows
                _print_table(f"inference, batch 1, {side}x{side}, {options.threads} threads", BASELINE, rows)
        if options.only != "inference":
            rows = _rows(_race(_training(python, folder, options), options, "training"), TRAINING_BASELINE)
            report["training"] = rows
            side = _training_side(options)
            title = f"training step, {BATCH}x{side}x{side}, {options.threads} threads"
            _print_table(title, TRAINING_BASELINE, rows)
    report["claims"] = _claims(report)
    for claim in report["claims"]:
        verdict = ("yes" if claim["holds"] else "NO") + ("" if claim["clean"] else ", but contended")
        print(f"{claim['claim']}: {verdict} ({claim['measured']}x: {claim['ours']} against {claim['peer']})")
    if options.quick:
        print("A quick run shows that the benchmark works; its numbers say nothing.")
    _say(f"wrote {storage.write_json(out, report)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- preparation ------------------------------------------------------------------------------------------------------


def _nets(names: Sequence[str]) -> dict[str, tuple[fast_style.Config, str | None]]:
    """Name -> config, and the preset whose weights it gets if not random ones."""
    nets: dict[str, tuple[fast_style.Config, str | None]] = {name: (config, None) for name, config in NETS.items()}
    for preset in names:
        config = fast_style.Config.from_dict(presets.preset("fast_style", preset).config)
        same = [n for n, (c, _) in nets.items() if all(getattr(c, f) == getattr(config, f) for f in ARCHITECTURE)]
        nets[same[0] if same else f"preset {preset}"] = (config, f"fast_style/{preset}")
    return nets


def _export_peer(python: Path, folder: Path, options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Let PyTorch write its network as ONNX files, one for each side."""
    place = folder / "peer"
    place.mkdir()
    job = {"task": "export", "out": str(place), "sides": options.sizes}
    result = race([Contestant("PyTorch, export to ONNX", python, TORCH, job)], 0, options.threads, 0, _say)[0]
    if result.error:
        raise SystemExit(f"the PyTorch net cannot be exported: {result.error}")
    return place, result.facts


@dataclasses.dataclass(frozen=True)
class _File:
    """An exported artifact: what it is, and why it may not be used, if so."""

    path: Path
    facts: dict[str, Any]


def _export_ours(
    nets: dict[str, tuple[fast_style.Config, str | None]], sizes: Sequence[int], folder: Path
) -> dict[tuple[str, str, int], _File]:
    """(net, kind, side) -> file. An artifact that its quality gate rejects is kept, and says so."""
    files = {}
    for name, (config, preset) in nets.items():
        keras.utils.set_random_seed(0)
        source = preset or fast_style.FAMILY.model(config)
        for side in sizes:
            kinds = [("litert", p) for p in ("fp32", "dynamic", "int8")]
            # One ONNX file serves all sizes.
            for form, precision in [*kinds, ("onnx", "fp32")] if side == sizes[0] else kinds:
                place = folder / "ours" / name.replace(" ", "-") / str(side) / form / precision
                _say(f"exporting {name}, {form} {precision}, {side}x{side}")
                try:
                    export(source, place, formats=[form], precision=precision, size=side)
                except VerificationError as error:
                    _say(f"  {error}")
                except ExportError as error:
                    _say(f"  it cannot be made: {error}")
                    continue
                # The index also describes what was rejected.
                index = json.loads((place / "export.json").read_text())
                (artifact,) = next(iter(index["models"].values()))["artifacts"]
                facts = {
                    "net": name,
                    "format": form,
                    "precision": precision,
                    "bytes": artifact["bytes"],
                    "rejected": "; ".join(artifact["problems"]),
                }
                for each in sizes if form == "onnx" else [side]:
                    files[name, f"{form} {precision}", each] = _File(place / artifact["path"], facts)
    return files


# --- contestants ------------------------------------------------------------------------------------------------------


def _inference(
    python: Path,
    side: int,
    peer_files: Path,
    ours: dict[tuple[str, str, int], _File],
    folder: Path,
    compiled: bool,
) -> list[tuple[Contestant, dict[str, Any]]]:
    here = Path(sys.executable)
    picture = folder / f"picture-{side}.npy"
    np.save(picture, np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8))
    peer_onnx = {"task": "onnx", "path": str(peer_files / f"{side}.onnx"), "answer": str(peer_files / f"{side}.npz")}
    found = [
        (Contestant(BASELINE, here, OURS, peer_onnx), {}),
        (Contestant("PyTorch net, eager", python, TORCH, {"task": "eager", "side": side}), {}),
    ]
    if compiled:
        job = {"task": "compiled", "side": side}
        found.append((Contestant("PyTorch net, torch.compile", python, TORCH, job), {}))
    titles = {"litert": "LiteRT", "onnx": "ONNX Runtime"}
    for (net, _, of_side), file in ours.items():
        if of_side == side:
            job = {"task": file.facts["format"], "path": str(file.path), "picture": str(picture)}
            name = f"{net}: {titles[file.facts['format']]} {file.facts['precision']}"
            found.append((Contestant(name, here, OURS, job), file.facts))
    return found


def _training_side(options: argparse.Namespace) -> int:
    return options.sizes[0] if options.quick else SIDE


def _training(python: Path, folder: Path, options: argparse.Namespace) -> list[tuple[Contestant, dict[str, Any]]]:
    """Random weights of VGG16 on both sides: times do not depend on them."""
    side, random = _training_side(options), np.random.default_rng(0)
    paths = {name: str(folder / f"{name}.npy") for name in ("photos", "painting")}
    photos = random.integers(0, 256, (BATCH, side, side, 3), np.uint8)
    painting = random.integers(0, 256, (1, side, side, 3), np.uint8)
    np.save(paths["photos"], photos)
    np.save(paths["painting"], painting)
    write_image(folder / "painting.png", painting[0])
    vgg = {}
    for key, shape in sources.shapes("vgg16").items():
        layer, kind = key.split("/")
        block, number = layer.removeprefix("conv").split("_")
        scale = np.sqrt(2 / np.prod(shape[:-1])) if kind == "kernel" else 0.0
        vgg[f"block{block}_conv{number}_{kind}"] = (scale * random.standard_normal(shape)).astype("float32")
    storage.save_npz(folder / "vgg16.npz", vgg)

    found: list[tuple[Contestant, dict[str, Any]]] = []
    for name, precision, choice in (
        (TRAINING_BASELINE, "float32", {}),
        ("PyTorch, float32, channels last", "float32", {"channels_last": True}),
        ("PyTorch, bfloat16 autocast, channels last", "mixed_bfloat16", {"channels_last": True, "bfloat16": True}),
    ):
        job = {"task": "train", **paths, **choice}
        found.append((Contestant(name, python, TORCH, job), {"precision": precision}))
    for net in ("paper, PyTorch's architecture", "paper"):
        for precision in ("float32", "mixed_bfloat16"):
            config = dataclasses.replace(
                NETS[net],
                precision=precision,
                size=side,
                style_size=side,
                style=folder / "painting.png",
                photos=folder,
                vgg=str(folder / "vgg16.npz"),
            )
            job = {"task": "train", "config": config.to_dict(), "photos": paths["photos"]}
            facts = {"net": net, "precision": precision}
            found.append((Contestant(f"{net}: {precision}", Path(sys.executable), OURS, job), facts))
    return found


# --- results ----------------------------------------------------------------------------------------------------------


def _race(contestants: list[tuple[Contestant, dict[str, Any]]], options: argparse.Namespace, what: str) -> list[Result]:
    _say(f"{what}: {len(contestants)} contestants")
    seconds = 0.1 if options.quick else 1.0
    results = race([c for c, _ in contestants], options.rounds, options.threads, seconds, _say)
    for result, (_, facts) in zip(results, contestants, strict=True):
        result.facts = {**result.facts, **facts}
    return results


def _rows(results: Sequence[Result], baseline: str) -> list[dict[str, Any]]:
    """Each result with how many times as fast as the baseline it is: by medians, and in the worst and best round."""
    base = next(result for result in results if result.name == baseline)
    rows = []
    for result in results:
        row = result.to_dict()
        if base.median and result.median:
            row["times_as_fast"] = round(base.median / result.median, 3)
            row["times_as_fast_in_rounds"] = [
                round(statistics.median(theirs.seconds) / statistics.median(own.seconds), 3)
                for theirs, own in zip(base.turns, result.turns, strict=False)
            ]
        rows.append(row)
    return rows


def _print_table(title: str, baseline: str, rows: Sequence[dict[str, Any]]) -> None:
    print(f"\n{title}\n(x: times as fast as {baseline!r}, by medians, and in the worst and best round)\n")
    width = max(len(row["name"]) for row in rows)
    print(f"{'':{width}}  median ms     min ms  cpu ms/call  clean rounds       x  worst-best  notes")
    for row in rows:
        if "median_ms" not in row:
            print(f"{row['name']:{width}}  cannot run: {row['error']}")
            continue
        ratios = row.get("times_as_fast_in_rounds") or [float("nan")]
        notes = [f"rejected: {row['rejected']}"] if row.get("rejected") else []
        if not row["clean_rounds"]:
            notes.append("every round was contended")
        if row["idle_cpu_s"] > 0.02 * len(row["rounds"]) * len(rows):
            notes.append(f"burned {row['idle_cpu_s']} s of CPU while waiting")
        print(
            f"{row['name']:{width}}{row['median_ms']:11.1f}{row['min_ms']:11.1f}{row['cpu_ms']:13.1f}"
            f"{row['clean_rounds']:>8} of {len(row['rounds']):<3}{row.get('times_as_fast', float('nan')):8.2f}"
            f"  {min(ratios):4.2f}-{max(ratios):4.2f}   {'; '.join(notes)}".rstrip()
        )
    print()


def _claims(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What the project says of its speed, against what was measured. Rejected artifacts do not count."""
    claims = []

    def claim(text: str, ours: Sequence[dict[str, Any]], peers: Sequence[dict[str, Any]], least: float) -> None:
        """The fastest of ours against the fastest of the peers."""
        best, peer = (min(rows, key=lambda row: row["median_ms"], default=None) for rows in (ours, peers))
        ratio = peer["median_ms"] / best["median_ms"] if best and peer else None
        claims.append(
            {
                "claim": text,
                "at_least": least,
                "measured": None if ratio is None else round(ratio, 3),
                "ours": best and best["name"],
                "peer": peer and peer["name"],
                "holds": ratio is not None and ratio >= least,
                "clean": bool(best and peer and best["clean_rounds"] and peer["clean_rounds"]),
            }
        )

    for size, rows in report["inference"].items():
        timed = [row for row in rows if "median_ms" in row]
        base = [row for row in timed if row["name"] == BASELINE]
        ours = [row for row in timed if "net" in row and not row["rejected"]]
        paper = [row for row in ours if row["net"].startswith("paper")]
        exact = [row for row in paper if row["precision"] == "fp32"]
        mobile = [row for row in ours if row["net"] == "mobile"]
        claim(f"{size}: an exported paper net in float32 is as fast as the baseline", exact, base, 1.0)
        claim(f"{size}: an exported paper net in any precision is as fast as the baseline", paper, base, 1.0)
        claim(f"{size}: mobile is 5 times as fast as the baseline", mobile, base, 5.0)
    timed = [row for row in report.get("training", ()) if "median_ms" in row]
    for precision, allowed in (("float32", ("float32",)), ("mixed_bfloat16", ("float32", "mixed_bfloat16"))):
        ours = [row for row in timed if "net" in row and row["precision"] == precision]
        peers = [row for row in timed if "net" not in row and row["precision"] in allowed]
        if timed:
            claim(f"a training step in {precision} is as fast as PyTorch's fastest of {allowed}", ours, peers, 1.0)
    return claims


if __name__ == "__main__":
    main()
