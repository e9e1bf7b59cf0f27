"""Stacks of small pictures, and drawing from them."""

import gzip
import struct
import weakref
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.data import picture_stack, read_idx, read_image, stacks, write_image
from kerasmodels.data.stacks import fitted, random_batches
from kerasmodels.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path: Path, packed: bool):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 5, 4), "uint8")
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(idx(pictures)) if packed else idx(pictures))
    np.testing.assert_array_equal(read_idx(path), pictures)
    np.testing.assert_array_equal(picture_stack(path, 5, 4, 1)[..., 0], pictures)
    color = picture_stack(path, 5, 4, 3)
    assert color.shape == (3, 5, 4, 3)
    np.testing.assert_array_equal(color[..., 2], pictures)


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\x01\0", idx(np.zeros((2, 2), "uint8"))[:-1]]
)
def test_no_idx(tmp_path: Path, content: bytes):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match="expected an IDX file of bytes"):
        read_idx(tmp_path / "a")
    with pytest.raises(DataError, match="expected an IDX file of bytes"):
        read_idx(tmp_path / "missing")


def test_folder_of_pictures_of_all_sizes(tmp_path: Path):
    wide = np.zeros((10, 30, 3), "uint8")
    wide[:, 10:20] = (0, 128, 255)
    write_image(tmp_path / "wide.png", wide)
    write_image(tmp_path / "z" / "small.png", np.full((3, 3, 3), 9, "uint8"))
    stack = picture_stack(tmp_path, 10, 10, 3)
    assert (stack.shape, stack.dtype) == ((2, 10, 10, 3), np.uint8)
    # The middle of the wide one, which needs no resizing there.
    np.testing.assert_array_equal(stack[0], np.broadcast_to(np.array([0, 128, 255], "uint8"), (10, 10, 3)))
    assert (stack[1] == 9).all()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png"):
        picture_stack(tmp_path, 10, 10, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures in"):
        picture_stack(tmp_path / "empty", 10, 10, 3)


def test_draws_depend_on_seed_and_step_alone():
    pictures = np.arange(1000)

    def draw(seed: int, step: int) -> list[int]:
        return (
            random_batches(pictures, tf.constant([4, 25]), seed, tf.constant(step, tf.int64)).numpy().ravel().tolist()
        )

    assert draw(0, 7) == draw(0, 7)
    assert draw(0, 7) != draw(0, 8)
    assert draw(0, 7) != draw(1, 7)
    assert len(set(draw(0, 7))) > 80


@pytest.mark.parametrize("picture", [np.full((4, 5), 0.5, "float32"), np.full((4, 5, 3), 200.0), np.eye(4, 5) > 0])
def test_only_bytes_are_fitted(picture):
    with pytest.raises(DataError, match="uint8"):
        fitted(picture, 4, 4, 1)


def test_photos_are_fitted_one_by_one(tmp_path, monkeypatch):
    """A folder of camera photos takes the memory of its stack and of one photo."""
    seen: list[weakref.ref] = []
    most = []

    def reading(path):
        picture = read_image(path)
        seen.append(weakref.ref(picture))
        most.append(sum(each() is not None for each in seen))
        return picture

    for number in range(5):
        write_image(tmp_path / f"{number}.png", np.full((30, 40, 3), number, "uint8"))
    monkeypatch.setattr(stacks, "read_image", reading)
    assert picture_stack(tmp_path, 6, 8, 1)[:, 0, 0, 0].tolist() == list(range(5))
    assert max(most) <= 2


def test_one_picture_is_no_folder(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((4, 4, 3), "uint8"))
    with pytest.raises(DataError, match=r"a folder of pictures, or an IDX file.*a\.png', one picture"):
        picture_stack(tmp_path / "a.png", 4, 4, 3)
