"""Gives damaged files to every reader and reports what is not one of our errors, slow, or large.

Run by test_readers.py in a process of its own: `python -m tests.fuzz.child COUNT SEED FOLDER`. Prints JSON.
"""

import faulthandler
import json
import logging
import os
import random
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels import presets, registry, storage
from kerasmodels.backbones import sources
from kerasmodels.backbones.torch_file import read_torch
from kerasmodels.data import image_size, read_idx, read_image
from kerasmodels.data.segmentation import read_annotation, read_label_map
from kerasmodels.errors import KerasModelsError
from kerasmodels.export.place import Place
from kerasmodels.ports import trunks
from kerasmodels.ports.caffe import read_caffemodel
from kerasmodels.runs import RunFolder
from kerasmodels.tasks import refine_labels
from kerasmodels.training import checkpoint, gallery
from tests.backbones.test_sources import BLOCKS
from tests.fuzz import corpus

SECONDS, BYTES = 2.0, 1_000_000_000
FAMILY = registry.family("wgan")
PHOTO = np.zeros((5, 6, 3), "uint8")


def _run(path: Path) -> None:
    trained = RunFolder(path.parent).trained()
    registry.family(trained.family).config.from_dict(trained.config)


def _preset(path: Path) -> None:
    for trained in presets.presets("wgan").values():
        FAMILY.config.from_dict(trained.config)


READERS: dict[str, list[Callable[[Path], Any]]] = {
    "picture": [read_image, lambda p: read_image(p, 4), image_size, read_label_map, read_annotation],
    "npz": [storage.load_npz],
    "npy": [lambda p: refine_labels._read_probabilities(p, PHOTO)],
    "idx": [read_idx],
    "checkpoint": [checkpoint.read],
    "vgg16": [lambda p: sources.load("vgg16", p), lambda p: sources._card(p) if p.suffix == ".npz" else None],
    "vgg19": [lambda p: sources.load("vgg19", p)],
    "torch": [read_torch],
    "package": [trunks.from_lite],
    "caffe": [read_caffemodel],
    "run": [lambda p: RunFolder(p.parent).read(), _run],
    "export": [lambda p: Place(p.parent).read_index()],
    "preset": [_preset],
    "toml": [FAMILY.config.from_toml],
    "log": [gallery.columns],
}


def _memory(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def main(count: int, seed: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    faulthandler.enable()
    presets.PRESETS = folder
    (folder / "wgan").mkdir()
    (folder / "weights.npz").touch()
    # Two small blocks for VGG's five: files of kilobytes.
    sources.NETWORKS |= {"vgg16": BLOCKS, "vgg19": (*BLOCKS, sources.Block(5, 1))}
    card = json.dumps(corpus.run_card(FAMILY), indent=2).encode()
    found = corpus.seeds(FAMILY, {"run.json": card, "export.json": corpus.export_index(), "preset.json": card})
    findings: dict[str, dict[str, Any]] = {}
    worst = {"seconds": 0.0, "bytes": 0}
    read = 0
    for number in range(-len(found), count):
        draws = random.Random(f"{seed} {number}")
        # First every sound file, which must be read.
        sound = number < 0
        # Parsing flags takes long.
        chosen = found[number] if sound else draws.choice(found)
        if chosen.kind == "toml" and not sound and draws.random() < 0.7:
            continue
        content = chosen.whole() if sound else corpus.damaged(chosen, found, draws)
        path = corpus.write(chosen, content, folder / "wgan" if chosen.kind == "preset" else folder)
        for place, reader in enumerate(READERS[chosen.kind]):
            # Peak memory counts from here.
            Path("/proc/self/clear_refs").write_text("5")
            before, began, wrong = _memory("VmRSS"), time.process_time(), ""
            try:
                reader(path)
                read += 1
            except KerasModelsError as error:
                # Not every reader takes every picture, and these seeds are parts of a network only.
                if sound and not place and chosen.name not in ("c.npz", "p.whl", "p.tar.gz"):
                    wrong = f"a sound file is refused: {error}"
                str(error).encode()
            except BaseException as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                wrong = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {error}"[:300]
            seconds, bytes_ = time.process_time() - began, _memory("VmHWM") - before
            worst = {"seconds": max(worst["seconds"], seconds), "bytes": max(worst["bytes"], bytes_)}
            if not wrong and seconds > SECONDS:
                wrong = "slow"
            if not wrong and bytes_ > BYTES:
                wrong = "large"
            key = f"{chosen.kind}/{place} {wrong.partition(': ')[0]}"
            if wrong and key not in findings:
                kept = path.with_name(f"finding-{len(findings)}-{path.name}")
                kept.write_bytes(content)
                findings[key] = {"what": wrong, "seconds": seconds, "bytes": bytes_, "file": str(kept)}
        os.unlink(path)
    print(json.dumps({"findings": findings, "worst": worst, "read": read}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
