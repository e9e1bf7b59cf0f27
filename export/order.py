"""What is to be made: a servable with its dimensions bound, and everything a format needs to know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasmodels.data.images import list_images, read_image
from kerasmodels.errors import UsageError
from kerasmodels.family import Servable, TensorSpec

if TYPE_CHECKING:
    from kerasmodels.export.signatures import Sources

CALIBRATION_EXAMPLES = 8
CALIBRATION_PICTURES = 100
HELD_OUT = 4
"""Of so many given for calibration, one is kept to measure with."""
# Seeds of `servable.example`; calibration must not see what verification measures.
CALIBRATION_SEED = 1000

Size = int | str | tuple[int, int] | Mapping[str, int] | None
Calibration = str | Path | Sequence[np.ndarray] | Sequence[Mapping[str, np.ndarray]] | None


@dataclass(frozen=True)
class Order:
    """One artifact to make.

    Args:
        servable: what is exported.
        sources: the SavedModels of it that converters read.
        name: name of the model.
        dims: value of each named dimension, the batch being 1.
        free: the named dimensions that may vary in the artifact.
        precision: fp32, fp16, dynamic or int8.
        work: folder for it and for intermediate files.
        file_name: its name in there.
        metadata: what the artifact says of itself.
        allow_flex: accept LiteRT operators of TensorFlow.
        older_onnx: ONNX operators of opset 18 only.
        calibration: example inputs for int8, else empty.
        held_out: inputs like them, on which it is measured; empty: on the servable's own examples.
    """

    servable: Servable
    sources: "Sources"
    name: str
    dims: Mapping[str, int]
    free: frozenset[str]
    precision: str
    work: Path
    file_name: str
    metadata: Mapping[str, Any]
    allow_flex: bool = False
    older_onnx: bool = False
    calibration: Sequence[Mapping[str, np.ndarray]] = field(default_factory=tuple)
    held_out: Sequence[Mapping[str, np.ndarray]] = field(default_factory=tuple)

    @property
    def path(self) -> Path:
        """Where it is made."""
        return self.work / self.file_name

    def bound(self) -> dict[str, int | None]:
        """The named dimensions, None where they may vary."""
        return {name: None if name in self.free else value for name, value in self.dims.items()}

    def save_calibration(self) -> str | None:
        """Write the calibration examples as .npz and return its path, or None without any."""
        if not self.calibration:
            return None
        path = self.work / "calibration.npz"
        arrays = {f"{i}/{k}": v for i, example in enumerate(self.calibration) for k, v in example.items()}
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return str(path)


def input_dims(servable: Servable) -> list[str]:
    """Names of the dimensions of the inputs, in order of appearance."""
    return list(dict.fromkeys(d for spec in servable.inputs for d in spec.shape if isinstance(d, str)))


def bind(servable: Servable, size: Size) -> tuple[dict[str, int], bool]:
    """The dimensions a request names, and whether it asks for dimensions that may vary.

    Args:
        servable: what is exported.
        size: None for `servable.dims`; a side in pixels for both `height` and `width`; (height, width); the same as
            text, "256" or "256x384"; a mapping of dimension names; or "dynamic".

    Raises:
        UsageError: none of these, a dimension the servable has not, or a value below 1.
    """
    names = input_dims(servable)
    missing = [n for n in names if n not in servable.dims and n != "batch"]
    if missing:
        raise UsageError(f"expected servable.dims to give a value to {', '.join(missing)}. Received: {servable.dims}.")
    given: dict[str, int] = {}
    dynamic = False
    if isinstance(size, str):
        if size == "dynamic":
            dynamic, size = True, None
        else:
            sides = size.lower().split("x")
            if not all(side.isdecimal() for side in sides) or len(sides) > 2:
                raise UsageError(
                    f'expected a size such as "256" or "256x384" (height x width), or "dynamic". Received: {size!r}.'
                )
            size = (int(sides[0]), int(sides[-1]))
    if isinstance(size, int) and not isinstance(size, bool):
        size = (size, size)
    if isinstance(size, Mapping):
        given = dict(size)
    elif isinstance(size, tuple) and len(size) == 2:
        given = {"height": size[0], "width": size[1]}
    elif size is not None:
        raise UsageError(f"expected a side, (height, width), a mapping of dimensions or 'dynamic'. Received: {size!r}.")
    for name, value in given.items():
        if name not in names or name == "batch":
            known = ", ".join(n for n in names if n != "batch") or "none"
            raise UsageError(f"the servable has no dimension {name!r} whose size can be chosen. It has: {known}.")
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"expected {name} to be an integer of at least 1. Received: {value!r}.")
    # LiteRT turns a batch that may vary into slower operators, and loops over time then fail to convert.
    return {**servable.dims, **given, **({"batch": 1} if "batch" in names else {})}, dynamic


def calibration_examples(
    servable: Servable, dims: Mapping[str, int], source: Calibration
) -> tuple[Mapping[str, np.ndarray], ...]:
    """Inputs that int8 conversion measures the value ranges on.

    Args:
        servable: what is exported.
        dims: value of each named dimension.
        source: a folder of pictures, cropped and scaled to the size of the artifact (the first 100 by name); a list of
            arrays for a servable with one input, or of dicts of arrays; None for examples of the servable's own.

    Raises:
        UsageError: examples that do not fit the inputs, or a folder for a servable that does not take one picture.
        DataError: a folder without readable pictures.
    """
    if source is None:
        return tuple(servable.example(dims, CALIBRATION_SEED + i) for i in range(CALIBRATION_EXAMPLES))
    only = servable.inputs[0]
    if isinstance(source, str | Path):
        if len(servable.inputs) != 1 or only.kind != "image":
            raise UsageError("expected a list of arrays for calibration: this servable does not take one picture.")
        height, width = only.bind(dims)[1:3]
        paths = list_images(source)[:CALIBRATION_PICTURES]
        return tuple({only.name: _fit(read_image(path), int(height or 1), int(width or 1))[None]} for path in paths)
    examples: list[Mapping[str, np.ndarray]] = []
    for item in source:
        given = item if isinstance(item, Mapping) else {only.name: np.asarray(item)}
        examples.append({spec.name: _checked(spec, given, dims) for spec in servable.inputs})
    if not examples:
        raise UsageError("expected at least one calibration example. Received none.")
    return tuple(examples)


def _checked(spec: TensorSpec, given: Mapping[str, np.ndarray], dims: Mapping[str, int]) -> np.ndarray:
    array = np.asarray(given[spec.name]) if spec.name in given else None
    shape = spec.bind(dims)
    if array is not None and array.ndim == len(shape) - 1:
        array = array[None]
    if array is None or array.shape != shape or array.dtype.name != spec.dtype:
        received = "nothing" if array is None else f"{array.dtype.name} {array.shape}"
        raise UsageError(f"expected calibration arrays {spec.name} of {spec.dtype} {shape}. Received: {received}.")
    return array


def _fit(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(Image.fromarray(picture), (width, height), Image.Resampling.LANCZOS))
