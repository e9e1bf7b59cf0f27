"""Decoding files inside the artifact, against Pillow's reading of the same files."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasmodels.data.images import read_image
from kerasmodels.errors import ExportError
from kerasmodels.export import signatures
from kerasmodels.family import Servable

RNG = np.random.default_rng(1)
RGB = Image.fromarray(RNG.integers(0, 256, (12, 17, 3), dtype="uint8"))
SMOOTH = RGB.resize((40, 24), Image.Resampling.BICUBIC)
GRAY16 = Image.fromarray(RNG.integers(0, 65536, (12, 17), dtype="uint16"))
RGBA = Image.fromarray(RNG.integers(0, 256, (12, 17, 4), dtype="uint8"))


@pytest.mark.parametrize(
    ("name", "picture", "tolerance"),
    [
        ("rgb.png", RGB, 0),
        ("gray.png", RGB.convert("L"), 0),
        ("palette.png", RGB.quantize(16), 0),
        ("one_bit.png", RGB.convert("1"), 0),
        ("gray16.png", GRAY16, 0),
        ("rgba.png", RGBA, 1),
        ("gray_alpha.png", RGBA.convert("LA"), 1),
        ("rgb.bmp", RGB, 0),
        ("palette.gif", RGB.quantize(16), 0),
        ("rgb.jpg", SMOOTH, 6),
        ("gray.jpg", SMOOTH.convert("L"), 3),
    ],
)
def test_decode_agrees_with_pillow(tmp_path: Path, name: str, picture: Image.Image, tolerance: int) -> None:
    path = tmp_path / name
    picture.save(path)
    found = signatures.decode(tf.constant(path.read_bytes())).numpy()
    expected = read_image(path)
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= tolerance


def test_decode_16_bit_color() -> None:
    """Pillow cannot write these; TensorFlow can. 16-bit values are rounded to the nearest of 8 bits."""
    deep = RNG.integers(0, 65536, (5, 6, 3), dtype="uint16")
    found = signatures.decode(tf.io.encode_png(deep)).numpy()
    np.testing.assert_array_equal(found, np.rint(deep / 257.0))


def test_decode_cmyk_jpeg() -> None:
    file = io.BytesIO()
    SMOOTH.convert("CMYK").save(file, "JPEG", quality=95)
    found = signatures.decode(tf.constant(file.getvalue())).numpy()
    assert np.abs(found.astype(int) - np.asarray(SMOOTH)).mean() < 6


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures.decode(tf.constant(b"just some words"))


def test_reference_checks_the_names(picture_servable: Servable) -> None:
    import dataclasses

    wrong = dataclasses.replace(picture_servable, call=lambda image: {"other": image})
    with pytest.raises(ExportError, match=r"to return the outputs \['stylized'\]. Received: \['other'\]"):
        signatures.reference(wrong, {"image": np.zeros((1, 4, 4, 3), "uint8")})
