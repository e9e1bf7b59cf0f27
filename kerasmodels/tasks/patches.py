"""Searching photos for what excites the units of a network most, and showing it."""

import dataclasses
import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from kerasmodels.config import Config, NonNegativeInt, PositiveInt, check
from kerasmodels.data import grid, list_images, read_image, write_image
from kerasmodels.data.images import check_picture_name
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import RunReport
from kerasmodels.servables import served
from kerasmodels.storage import check_writable, write_json
from kerasmodels.tasks.pictures import check_targets

_OUTSIDE = 128
"""Gray level of what lies outside the photo."""


@dataclass(frozen=True)
class Patch:
    """Where in a photo a unit is most active.

    Attributes:
        photo: the photo's name.
        activation: the unit's value.
        position: row and column of the feature map.
        box: ((top, bottom), (left, right)) of what the unit sees, pixels; it may reach beyond the photo.
        inside: whether it does not.
        pixels: (r, r, 3) uint8, what the unit sees; gray where that lies outside the photo.
    """

    photo: str
    activation: float
    position: tuple[int, int]
    box: tuple[tuple[int, int], ...]
    inside: bool
    pixels: np.ndarray


def top_patches(
    model: Any, photos: Iterable[tuple[str, np.ndarray]], units: Sequence[int], k: int = 9
) -> dict[int, list[Patch]]:
    """For each unit the k photos in which it is most active, the most active first; one patch a photo.

    Photos are looked at one by one; only the patches that still count are kept. Positions that see padding are left
    out, unless a photo is too small to have others.

    Args:
        model: a layer, as a `FeaturePatches`.
        photos: (name, (H, W, 3) uint8 RGB), of any sizes from `model.least_side` up.
        units: numbers of the layer's channels.
        k: patches a unit.

    Returns:
        unit -> at most k patches. Photos in which a unit behind a ReLU is 0 everywhere do not count.

    Raises:
        UsageError: a unit that the layer does not have, or k below 1.

    Reference:
        Zeiler, Fergus 2014, figure 2.
    """
    check(k >= 1, "k >= 1", k)
    model.check_units(units)
    peaks = served(model, "peaks")
    silent = -np.inf if model.config.layer.startswith("conv") else 0.0
    # Equal activations: the earlier photo counts for more.
    best: dict[int, list[tuple[float, int, Patch]]] = {unit: [] for unit in units}
    for number, (name, photo) in enumerate(photos):
        found = {key: value[0] for key, value in peaks(image=photo[None]).items()}
        for unit, heap in best.items():
            value = float(found["activation"][unit])
            if not value > silent or (len(heap) == k and value <= heap[0][0]):
                continue
            row, column = (int(i) for i in found["position"][unit])
            box = model.field.box((row, column))
            inside = model.field.inside((row, column), photo.shape[:2])
            patch = Patch(name, value, (row, column), box, inside, _cut(photo, box))
            (heapq.heappush if len(heap) < k else heapq.heapreplace)(heap, (value, -number, patch))
    ordered = {unit: sorted(heap, key=lambda entry: entry[:2], reverse=True) for unit, heap in best.items()}
    return {unit: [patch for *_, patch in entries] for unit, entries in ordered.items()}


def _cut(photo: np.ndarray, box: Sequence[tuple[int, int]]) -> np.ndarray:
    """The pixels of the box; gray outside the photo."""
    patch = np.full((*(end - first for first, end in box), 3), _OUTSIDE, "uint8")
    within = [(max(first, 0), min(end, n)) for (first, end), n in zip(box, photo.shape, strict=False)]
    target = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(within, box, strict=True))
    patch[target] = photo[tuple(slice(a, b) for a, b in within)]
    return patch


def patch_sheet(
    best: Mapping[int, Sequence[Patch]], k: int = 9, maximized: np.ndarray | None = None, cell: int = 96
) -> np.ndarray:
    """A row of patches for each unit, as one picture: (H, W, 3) uint8. Places without a patch stay white.

    Args:
        best: what `top_patches` found.
        k: places in a row.
        maximized: (units, r, r, 3) uint8, pictures that excite the units: each stands before its row.
        cell: side of a patch in the sheet, pixels.
    """
    rows: list[list[np.ndarray | None]] = []
    for number, patches in enumerate(best.values()):
        first: list[np.ndarray | None] = [] if maximized is None else [maximized[number]]
        rows.append([*first, *(patch.pixels for patch in patches), *[None] * (k - len(patches))])
    return grid(rows, cell, apart=1 if maximized is not None and k else 0)


# --- files ------------------------------------------------------------------------------------------------------------


class PatchesOptions(Config):
    """Show what excites units of a network: a row for each unit, its best patches from a folder of photos."""

    unit: tuple[int, ...]
    """Channels of the layer, from 0; one row each."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture, such as grid.png; in a folder, MODEL_LAYER_UNITS.png. A .json beside it says where patches are."""
    photos: Path | None = None
    """A folder of photos, searched with its subfolders."""
    k: PositiveInt = 9
    """Patches a unit, one a photo."""
    maximize: tyro.conf.FlagCreatePairsOff[bool] = False
    """First in each row, a picture optimized to excite the unit. Photos are then not needed."""
    steps: PositiveInt = 150
    """Of that optimization."""
    seed: NonNegativeInt = 0
    """Of that optimization."""
    max_side: PositiveInt = 512
    """Photos are shrunk so that the longer side is at most this, pixels."""
    cell: PositiveInt = 96
    """Side of a patch in the sheet, pixels."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        check(len(self.unit) > 0, "at least one unit: --unit 17", self.unit)
        check(len(set(self.unit)) == len(self.unit), "each unit once", self.unit)
        if self.photos is None and not self.maximize:
            raise UsageError("expected a folder of photos (--photos DIR), or --maximize, or both. Received: neither.")


def write_patches(options: PatchesOptions, load: Callable[[], Any]) -> RunReport:
    """Write the sheet that the options ask for, and a .json of where its patches are.

    Args:
        options: what to show.
        load: makes the `FeaturePatches`; called when the requests have been looked at.

    Raises:
        UsageError: a unit that the layer does not have, or an input would be overwritten.
        DataError: no photo can be used. Some that cannot are left out and reported.
        StorageError: nothing can be written there.
    """
    files = [] if options.photos is None else list_images(options.photos)
    if options.out.suffix and not options.out.is_dir():
        side = options.cell + 2
        check_picture_name(options.out, side * len(options.unit), side * (options.k + options.maximize))
    model = load()
    model.check_units(options.unit)
    config = model.config
    out = options.out
    if out.is_dir() or not out.suffix:
        out /= f"{config.model}_{config.layer}_{'-'.join(map(str, options.unit))}.png"
    check_targets([out, out.with_suffix(".json")], files)
    check_writable(out)

    began, skipped = time.perf_counter(), list[str]()
    best = top_patches(model, _readable(files, options.max_side, model.least_side, skipped), options.unit, options.k)
    if files and len(skipped) == len(files):
        raise DataError(f"none of the {len(files)} photos can be used: " + " ".join(skipped[:3]))
    maximized = model.maximize(options.unit, options.steps, seed=options.seed) if options.maximize else None
    sheet = patch_sheet(best, options.k if files else 0, maximized, options.cell)
    record = {
        "model": config.model,
        "layer": config.layer,
        "weights": config.vgg,
        "receptive_field": dataclasses.asdict(model.field),
        "rows": [
            {
                "unit": unit,
                "maximized": None if maximized is None else float(model.on_patches(maximized[n : n + 1])[0, unit]),
                "patches": [
                    {name: getattr(patch, name) for name in ("photo", "activation", "position", "box", "inside")}
                    for patch in best[unit]
                ],
            }
            for n, unit in enumerate(options.unit)
        ],
    }
    written = (write_image(out, sheet), write_json(out.with_suffix(".json"), record))
    facts: dict[str, Any] = {
        "receptive field": f"{model.field.size[0]} pixels, one every {model.field.jump[0]}",
        "seconds": round(time.perf_counter() - began, 1),
    }
    if files:
        shown = [patch for patches in best.values() for patch in patches]
        facts["photos"] = len(files) - len(skipped)
        facts["patches that reach beyond the photo"] = sum(not patch.inside for patch in shown)
        if silent := [unit for unit, patches in best.items() if not patches]:
            facts["units that were never active"] = ", ".join(map(str, silent))
    if skipped:
        facts["photos skipped"] = f"{len(skipped)}: {' '.join(skipped[:3])}"
    return RunReport(written, facts)


def _readable(files: Sequence[Path], max_side: int, least: int, skipped: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The photos one by one; why one cannot be used is added to `skipped`."""
    for file in files:
        try:
            photo = read_image(file, max_side)
        except DataError as error:
            skipped.append(str(error))
            continue
        if min(photo.shape[:2]) < least:
            skipped.append(f"{file} is smaller than {least} pixels, so the layer has no position in it.")
            continue
        yield str(file), photo
