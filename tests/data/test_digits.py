import gzip
import struct
import sys

import numpy as np
import pytest

from kerasmodels.data.digits import FILES, read_digits, warped
from kerasmodels.errors import DataError

RANDOM = np.random.default_rng(0)


def idx(array, kind=8):
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """A folder with five digits for training and three for the test, half of the files compressed."""
    for (images, labels), count in zip(FILES.values(), (5, 3), strict=True):
        pictures = RANDOM.integers(0, 256, (count, 28, 28), "uint8")
        (tmp_path / images).write_bytes(idx(pictures))
        (tmp_path / f"{labels}.gz").write_bytes(gzip.compress(idx(np.arange(count, dtype="uint8"))))
    return tmp_path


def test_reads_mnist(mnist):
    pictures, labels = read_digits(mnist, "train")
    assert (pictures.shape, pictures.dtype, labels.dtype) == ((5, 28, 28, 1), "uint8", "int32")
    np.testing.assert_array_equal(labels, np.arange(5))
    content = (mnist / FILES["train"][0]).read_bytes()
    np.testing.assert_array_equal(pictures.ravel(), np.frombuffer(content[16:], "uint8"))
    assert read_digits(mnist, "test")[0].shape == (3, 28, 28, 1)


def test_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte or train-images-idx3-ubyte\.gz"):
        read_digits(tmp_path, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "IDX file of bytes"),
        (idx(np.zeros((5, 28, 28), "uint8"))[:-1], "IDX file of bytes"),
        (idx(np.zeros((5, 28, 28), "uint8"), kind=9), "no bytes inside"),
        (idx(np.zeros((5, 20, 20), "uint8")), "28 x 28"),
        (idx(np.zeros((4, 28, 28), "uint8")), "as many labels"),
    ],
)
def test_refuses_damaged_files(mnist, content, message):
    (mnist / FILES["train"][0]).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_digits(mnist, "train")


def test_without_a_folder_scikit_learn_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        read_digits(None, "train")


def disc(row, column, radius, count=1):
    y, x = np.mgrid[:28, :28]
    inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
    return np.broadcast_to(255.0 * inside[None, ..., None], (count, 28, 28, 1)).astype("uint8")


def test_scaled_makes_smaller_and_shifts():
    pictures = disc(13.5, 13.5, 9, 400)
    found = warped(pictures, "scaled", [1, 2]).numpy()
    share = found.sum((1, 2, 3)) / pictures[0].sum()
    # The expected area is E[1 / a]^2 = (ln 2.5 / 1.5)^2 of the whole.
    assert np.mean(share) == pytest.approx((np.log(2.5) / 1.5) ** 2, rel=0.05)
    assert 0.14 < share.min() < 0.25
    assert 0.85 < share.max() < 1.01
    rows = (found.sum((2, 3)) * np.arange(28)).sum(1) / found.sum((1, 2, 3)) - 13.5
    assert 3.5 < np.abs(rows).max() < 0.2 * 27 + 0.5
    assert abs(np.mean(rows)) < 0.5


def test_rotated_turns_about_the_middle():
    found = warped(disc(5.5, 13.5, 3, 300), "rotated", [1, 2]).numpy()
    total = found.sum((1, 2, 3))
    y, x = ((found.sum((axis, 3)) * np.arange(28)).sum(1) / total - 13.5 for axis in (2, 1))
    np.testing.assert_allclose(np.hypot(y, x), 8, atol=0.3)
    assert y.max() < 0.5
    assert min(x.max(), -x.min()) > 7


def test_the_seed_decides():
    pictures = disc(10, 12, 6, 3)
    for warp in ("scaled", "rotated"):
        one, same, other = (warped(pictures, warp, seed).numpy() for seed in ([1, 2], [1, 2], [1, 3]))
        np.testing.assert_array_equal(one, same)
        assert np.any(one != other)
    np.testing.assert_array_equal(warped(pictures, "none", [1, 2]), pictures)
