"""Label maps, annotations, overlays."""

import numpy as np
import pytest
from PIL import Image

from kerasmodels.data import segmentation
from kerasmodels.data.images import write_image
from kerasmodels.errors import DataError


def test_label_map_survives_a_file(tmp_path):
    labels = np.random.default_rng(0).choice([0, 1, 15, 255], (7, 9)).astype("uint8")
    path = segmentation.write_label_map(tmp_path / "mask.png", labels)
    np.testing.assert_array_equal(segmentation.read_label_map(path), labels)
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), segmentation.voc_palette()[labels])
    with pytest.raises(DataError, match="0 to 255"):
        segmentation.write_label_map(path, np.array([[300]]))


def test_grey_label_map_and_colour_picture(tmp_path):
    Image.fromarray(np.array([[0, 11], [3, 255]], "uint8")).save(tmp_path / "grey.png")
    assert segmentation.read_label_map(tmp_path / "grey.png").tolist() == [[0, 11], [3, 255]]
    write_image(tmp_path / "colours.png", np.zeros((3, 3, 3), "uint8"))
    with pytest.raises(DataError, match="mode is RGB"):
        segmentation.read_label_map(tmp_path / "colours.png")


def test_palette_is_pascal_voc_s():
    first = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert segmentation.voc_palette()[:7].tolist() == [list(colour) for colour in first]
    assert len(np.unique(segmentation.voc_palette(), axis=0)) == 256


def test_annotation(tmp_path):
    picture = np.zeros((4, 6, 3), "uint8")
    picture[:2, :3], picture[2:, :3] = (0, 0, 200), (10, 200, 0)
    labels, colours = segmentation.read_annotation(write_image(tmp_path / "a.png", picture))
    assert colours.tolist() == [[10, 200, 0], [0, 0, 200]]
    assert labels[0].tolist() == [1, 1, 1, -1, -1, -1]
    labels, colours = segmentation.read_annotation(tmp_path / "a.png", black=True)
    assert len(colours) == 3
    assert labels.min() == 0
    np.testing.assert_array_equal(colours[labels], picture)


def test_overlay_and_legend():
    photo = np.full((5, 6, 3), 100, "uint8")
    labels = np.zeros((5, 6), int)
    labels[:, 3:] = 1
    labels[0] = -1
    colours = np.array([[255, 0, 0], [0, 0, 255]], "uint8")
    painted = segmentation.overlay(photo, labels, colours, opacity=1.0)
    assert painted[3, 0].tolist() == [255, 0, 0]
    assert painted[3, 5].tolist() == [0, 0, 255]
    assert painted[3, 2].tolist() == [255, 255, 255]
    shown = segmentation.legend(["sky", "road"], colours)
    assert shown.ndim == 3
    assert {(255, 0, 0), (0, 0, 255)} <= {tuple(c) for c in shown.reshape(-1, 3).tolist()}
