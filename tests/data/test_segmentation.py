"""Label maps, annotations, overlays."""

import zlib

import numpy as np
import pytest
from PIL import Image

from kerasmodels.data import segmentation
from kerasmodels.data.images import read_image, write_image
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


def test_gray_label_map_and_color_picture(tmp_path):
    Image.fromarray(np.array([[0, 11], [3, 255]], "uint8")).save(tmp_path / "gray.png")
    assert segmentation.read_label_map(tmp_path / "gray.png").tolist() == [[0, 11], [3, 255]]
    write_image(tmp_path / "colors.png", np.zeros((3, 3, 3), "uint8"))
    with pytest.raises(DataError, match="mode is RGB"):
        segmentation.read_label_map(tmp_path / "colors.png")


def test_palette_is_pascal_voc_s():
    first = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert segmentation.voc_palette()[:7].tolist() == [list(color) for color in first]
    assert len(np.unique(segmentation.voc_palette(), axis=0)) == 256


def test_annotation(tmp_path):
    picture = np.zeros((4, 6, 3), "uint8")
    picture[:2, :3], picture[2:, :3] = (0, 0, 200), (10, 200, 0)
    labels, colors = segmentation.read_annotation(write_image(tmp_path / "a.png", picture))
    assert colors.tolist() == [[10, 200, 0], [0, 0, 200]]
    assert labels[0].tolist() == [1, 1, 1, -1, -1, -1]
    labels, colors = segmentation.read_annotation(tmp_path / "a.png", black=True)
    assert len(colors) == 3
    assert labels.min() == 0
    np.testing.assert_array_equal(colors[labels], picture)


def test_overlay_and_legend():
    photo = np.full((5, 6, 3), 100, "uint8")
    labels = np.zeros((5, 6), int)
    labels[:, 3:] = 1
    labels[0] = -1
    colors = np.array([[255, 0, 0], [0, 0, 255]], "uint8")
    painted = segmentation.overlay(photo, labels, colors, opacity=1.0)
    assert painted[3, 0].tolist() == [255, 0, 0]
    assert painted[3, 5].tolist() == [0, 0, 255]
    assert painted[3, 2].tolist() == [255, 255, 255]
    shown = segmentation.legend(["sky", "road"], colors)
    assert shown.ndim == 3
    assert {(255, 0, 0), (0, 0, 255)} <= {tuple(c) for c in shown.reshape(-1, 3).tolist()}


# --- what numbers and colors mean


def test_a_mask_of_one_bit_has_the_labels_0_and_1(tmp_path):
    mask = np.arange(12).reshape(3, 4) % 3 == 0
    Image.fromarray(mask).save(tmp_path / "a.png")
    np.testing.assert_array_equal(segmentation.read_label_map(tmp_path / "a.png"), mask)


def test_indices_are_labels_whatever_their_colors_and_transparency(tmp_path):
    labels = np.arange(12, dtype="uint8").reshape(3, 4) % 3
    image = Image.fromarray(labels)
    image.putpalette([9, 9, 9, 0, 200, 0, 255, 255, 255])
    image.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(segmentation.read_label_map(tmp_path / "a.png"), labels)


def test_label_maps_in_doubt(tmp_path):
    gray = Image.fromarray(np.arange(16, dtype="uint8").reshape(4, 4) % 4)
    gray.save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="JPEG, which changes numbers"):
        segmentation.read_label_map(tmp_path / "a.jpg")
    for mode in ("RGB", "RGBA", "LA", "I;16"):
        gray.convert(mode).save(tmp_path / "b.png")
        with pytest.raises(DataError, match=f"mode is {mode}.*write_label_map"):
            segmentation.read_label_map(tmp_path / "b.png")
    gray.save(tmp_path / "b.tif", tiffinfo={262: 0})
    with pytest.raises(DataError, match="0 for white"):
        segmentation.read_label_map(tmp_path / "b.tif")
    # A gray PNG of 4 bits: Pillow writes none, but its palette PNG of 4 bits differs in one byte of the header.
    paletted = gray.copy()
    paletted.putpalette([0, 0, 0] * 16)
    paletted.save(tmp_path / "c.png", bits=4)
    content = bytearray((tmp_path / "c.png").read_bytes())
    content[25] = 0
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    start = content.index(b"PLTE") - 4
    del content[start : start + 12 + int.from_bytes(content[start : start + 4], "big")]
    (tmp_path / "c.png").write_bytes(content)
    with pytest.raises(DataError, match="2 or 4 bits"):
        segmentation.read_label_map(tmp_path / "c.png")


@pytest.fixture
def folders(tmp_path):
    """Pictures and label maps with names that occur in two sub-folders."""
    for number, name in enumerate(("a/1", "a/2", "b/1", "3")):
        write_image(tmp_path / "photos" / f"{name}.jpg", np.full((6, 8, 3), 50 * number, "uint8"))
        segmentation.write_label_map(tmp_path / "masks" / f"{name}.png", np.arange(48).reshape(6, 8) % 2 + number)
    return tmp_path / "photos", tmp_path / "masks"


def test_pairs_are_of_the_same_sub_folder(folders):
    pairs = segmentation.label_pairs(*folders)
    assert len(pairs) == 4
    for pair in pairs:
        assert pair.photo.relative_to(folders[0]).with_suffix("") == pair.mask.relative_to(folders[1]).with_suffix("")
        assert read_image(pair.photo).mean() == pytest.approx(50 * segmentation.read_label_map(pair.mask).min(), abs=2)


def test_pairs_in_doubt(folders):
    photos, masks = folders
    with pytest.raises(DataError, match=r"Received: .*\.png as both"):
        segmentation.label_pairs(masks, masks)
    (photos / "b" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"b/1\.\* in .*Received: none there, but .*a/1\.jpg: use the same sub-folders"):
        segmentation.label_pairs(photos, masks)
    (masks / "b" / "1.png").unlink()
    assert len(segmentation.label_pairs(photos, masks)) == 3
    write_image(photos / "3.png", np.zeros((6, 8, 3), "uint8"))
    with pytest.raises(DataError, match=r"one picture 3\.\* .*3\.jpg, .*3\.png"):
        segmentation.label_pairs(photos, masks)
    (photos / "3.jpg").unlink()
    write_image(masks / "3.tif", np.zeros((6, 8), "uint8"))
    with pytest.raises(DataError, match=r"one label map 3\.\* .*3\.png, .*3\.tif"):
        segmentation.label_pairs(photos, masks)


def _pairs(folder, *maps):
    for number, labels in enumerate(maps):
        write_image(folder / "photos" / f"{number}.png", np.zeros((*labels.shape, 3), "uint8"))
        write_image(folder / "masks" / f"{number}.png", labels.astype("uint8"))
    return segmentation.label_pairs(folder / "photos", folder / "masks")


def test_counting_labels(tmp_path):
    pairs = _pairs(tmp_path, np.array([[0, 1, 1]]), np.array([[2, 255, 7]]), np.array([[0, 0, 0]]))
    assert segmentation.count_labels(pairs, 4, (7, 255)).tolist() == [4, 2, 1, 0]
    assert segmentation.read_truth(pairs[1], 4, (7, 255)).tolist() == [[2, 255, 255]]
    with pytest.raises(DataError, match=r"Received: 7\. Name more --classes"):
        segmentation.read_truth(pairs[1], 4)


@pytest.mark.parametrize(
    ("maps", "classes", "ignore", "message"),
    [
        ([[0, 255], [255, 255]], 2, (255,), r"Received: 0 on 25 %, 255 on 75 % \(ignored\)\. .* as labels, 0 and 1"),
        ([[255, 255]], 2, (255,), r"at least two labels .* Received: 255 on 100 %"),
        ([[0, 0], [0, 0]], 21, (255,), "Received: 0 on 100 %"),
        ([[1, 1], [0, 0]], 2, (0, 255), r"Received: 0 on 50 % \(ignored\), 1 on 50 %"),
        ([[0, 255]], 2, (), "or none for pixels to ignore, .*Received: 255.*written as 1, not 255"),
        ([[0, 1], [2, 1]], 2, (255,), "Received: 2"),
    ],
)
def test_labels_that_teach_nothing(maps, classes, ignore, message, tmp_path):
    pairs = _pairs(tmp_path, *(np.array([labels]) for labels in maps))
    with pytest.raises(DataError, match=message):
        segmentation.count_labels(pairs, classes, ignore)


def test_an_index_of_two_colors(tmp_path):
    """Colors saved with a palette of each file's own: the index of a color is chance."""
    pairs = _pairs(tmp_path, *2 * [np.array([[0, 1, 1]])])
    for pair, palette in zip(pairs, ([0, 0, 0, 255, 0, 0], [255, 0, 0, 0, 0, 0]), strict=True):
        image = Image.fromarray(np.array([[0, 1, 1]], "uint8"))
        image.putpalette(palette)
        image.save(pair.mask)
    with pytest.raises(DataError, match=r"label 0 to have one color .*\(0, 0, 0\) in .*0\.png and RGB \(255, 0, 0\)"):
        segmentation.count_labels(pairs, 2)


def test_an_annotation_with_a_palette_counts_by_its_colors(tmp_path):
    picture = np.zeros((6, 8, 3), "uint8")
    picture[:, 2:4], picture[:, 4:6] = (200, 0, 0), (255, 255, 255)
    write_image(tmp_path / "rgb.png", picture)
    wanted = segmentation.read_annotation(tmp_path / "rgb.png")
    Image.fromarray(picture).quantize(8, dither=Image.Dither.NONE).save(tmp_path / "p.png")
    for found, expected in zip(segmentation.read_annotation(tmp_path / "p.png"), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)
    labels = np.array([[0, 1, 2, 255]])
    segmentation.write_label_map(tmp_path / "voc.png", labels)
    assert segmentation.read_annotation(tmp_path / "voc.png", black=True)[0].tolist() == [[0, 1, 2, -1]]
    palette = segmentation.voc_palette()
    palette[255] = 255
    segmentation.write_label_map(tmp_path / "white.png", labels, palette)
    with pytest.raises(DataError, match=r"Received: RGB \(255, 255, 255\), which may be a label"):
        segmentation.read_annotation(tmp_path / "white.png", black=True)


def test_a_transparent_annotation(tmp_path):
    picture = np.full((4, 4, 4), 200, "uint8")
    picture[:2, :, 3] = 0
    write_image(tmp_path / "a.png", picture)
    with pytest.raises(DataError, match="transparent"):
        segmentation.read_annotation(tmp_path / "a.png")
