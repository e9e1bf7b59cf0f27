import numpy as np
import pytest
from PIL import Image

from kerasmodels.data import merge_orphans, read_labels, region_masks, write_image
from kerasmodels.data.regions import COLORS, cluster, fit_labels, labels_of, read_both_labels
from kerasmodels.data.segmentation import voc_palette, write_label_map
from kerasmodels.errors import DataError, UsageError

NAMES = list(COLORS)


def painted(labels):
    return np.array(list(COLORS.values()), "uint8")[labels]


def stripes(height=36, width=54, labels=range(9)):
    labels = np.asarray(list(labels))
    return np.repeat(labels, -(-width // len(labels)))[None, :width].repeat(height, 0).astype("uint8")


def test_the_nine_colors(tmp_path):
    path = write_image(tmp_path / "mask.png", painted(stripes()))
    np.testing.assert_array_equal(read_labels(path), stripes())


def test_anti_aliased_edges_take_a_neighbor_s_label():
    """White beside black blends to gray, which is a color of the table and must not become a region."""
    large = painted(stripes(40, 400, [NAMES.index(n) for n in ("white", "black", "red", "green")]))
    small = np.asarray(Image.fromarray(large).resize((130, 40), Image.Resampling.LANCZOS))
    assert len(np.unique(small.reshape(-1, 3), axis=0)) > 4
    assert {NAMES[k] for k in np.unique(labels_of(small))} == {"white", "black", "red", "green"}


def test_a_jpeg_of_a_mask(tmp_path):
    labels = stripes(48, 96, [3, 4, 0])
    path = write_image(tmp_path / "mask.jpg", painted(labels))
    assert (read_labels(path) == labels).mean() > 0.95


def test_an_unknown_color_is_named():
    picture = painted(stripes(20, 40, [0, 1]))
    picture[5:15, 5:15] = (255, 128, 0)
    with pytest.raises(DataError, match=r"\(255, 128, 0\)"):
        labels_of(picture, "mask.png")


def test_a_photo_is_no_mask():
    with pytest.raises(DataError, match="Paint that region"):
        labels_of(np.full((20, 20, 3), 90, "uint8"))


def test_a_palette_s_indices_are_labels(tmp_path):
    image = Image.frombytes("P", (54, 36), stripes().tobytes())
    image.putpalette([7, 7, 7] * 256)
    image.save(tmp_path / "voc.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "voc.png"), stripes())


def test_the_nine_colors_with_a_palette_count_by_color(tmp_path):
    """Whatever index a drawing program gave them; also with smoothed edges."""
    for order in (range(9), range(8, -1, -1)):
        order = np.array(list(order), "uint8")
        write_label_map(tmp_path / "mask.png", np.argsort(order)[stripes()], painted(order))
        np.testing.assert_array_equal(read_labels(tmp_path / "mask.png"), stripes())
    labels = stripes(60, 120, [3, 4, 0])
    smooth = Image.fromarray(painted(labels)).resize((119, 59), Image.Resampling.BILINEAR)
    smooth.quantize(256, dither=Image.Dither.NONE).save(tmp_path / "mask.png")
    assert set(np.unique(read_labels(tmp_path / "mask.png"))) == {0, 3, 4}


def test_a_palette_of_which_some_colors_are_of_the_nine(tmp_path):
    palette = np.array([[255, 0, 0], [255, 128, 0], [0, 0, 255]], "uint8")
    write_label_map(tmp_path / "mask.png", stripes(labels=range(3)), palette)
    with pytest.raises(DataError, match=r"\(255, 128, 0\)"):
        read_labels(tmp_path / "mask.png")


def test_black_alone_in_a_palette_is_the_background(tmp_path):
    palette = np.array([[0, 0, 0], [255, 128, 0], [0, 90, 90]], "uint8")
    for colors in (palette, voc_palette()):
        for labels in ((0, 1, 2), (0,)):
            write_label_map(tmp_path / "mask.png", stripes(labels=labels), colors)
            wanted = stripes(labels=labels)
            if len(labels) == 1 and colors is palette:
                wanted = wanted + NAMES.index("black")
            np.testing.assert_array_equal(read_labels(tmp_path / "mask.png"), wanted)


def test_masks_that_do_not_mean_the_same(tmp_path):
    palette = np.array([[0, 0, 0], [255, 128, 0], [0, 90, 90]], "uint8")
    one = write_label_map(tmp_path / "one.png", stripes(labels=range(3)), palette)
    other = write_label_map(tmp_path / "other.png", stripes(labels=range(3)), palette[[0, 2, 1]])
    nine = write_image(tmp_path / "nine.png", painted(stripes()))
    np.testing.assert_array_equal(read_both_labels(one, one)[1], stripes(labels=range(3)))
    np.testing.assert_array_equal(read_both_labels(nine, nine)[1], stripes())
    with pytest.raises(DataError, match=r"index 1 .*\(255, 128, 0\) in .*one\.png and RGB \(0, 90, 90\) in"):
        read_both_labels(one, other)
    with pytest.raises(DataError, match=r"Received: .*nine\.png, in the nine, and .*one\.png, with a palette"):
        read_both_labels(one, nine)
    with pytest.raises(DataError, match=r"nine\.png, in the nine"):
        read_both_labels(nine, one)


def test_a_transparent_mask(tmp_path):
    picture = np.concatenate([painted(stripes()), np.full((36, 54, 1), 255, "uint8")], axis=-1)
    picture[:9, :, 3] = 0
    write_image(tmp_path / "mask.png", picture)
    with pytest.raises(DataError, match="25 % of it transparent"):
        read_labels(tmp_path / "mask.png")


def test_masks_of_a_pixel_more_or_less_fit():
    labels = stripes(393, 700)
    assert fit_labels(labels, 394, 700).shape == (394, 700)
    assert fit_labels(stripes(20, 30), 400, 600).shape == (400, 600)
    with pytest.raises(DataError, match="proportions"):
        fit_labels(labels, 700, 393)


def test_orphans_take_the_nearest_label_that_is_known():
    labels = stripes(10, 90, [0, 5, 1])
    merged = merge_orphans(labels, [0, 1, 2])
    assert set(np.unique(merged)) == {0, 1}
    np.testing.assert_array_equal(merged[:, :30], 0)
    np.testing.assert_array_equal(merged[:, 60:], 1)
    assert (merged[:, 30:44] == 0).all()
    assert (merged[:, 46:60] == 1).all()
    np.testing.assert_array_equal(merge_orphans(labels, [0, 1, 5]), labels)


def test_nothing_in_common():
    with pytest.raises(DataError, match=r"white.*red"):
        merge_orphans(np.full((9, 9), NAMES.index("white")), [NAMES.index("red")])


@pytest.mark.parametrize("size", [(36, 54), (17, 23), (80, 101)])
def test_masks_are_fractions_that_sum_to_1(size):
    masks = region_masks(stripes(), range(9), *size)
    assert masks.shape == (9, *size)
    np.testing.assert_allclose(masks.sum(0), 1, atol=1e-5)


def test_clusters_mean_the_same_in_both_pictures():
    random = np.random.default_rng(0)
    here, there = stripes(12, 30, [0, 1, 2]), stripes(9, 20, [2, 0])
    centers = random.normal(size=(3, 5))
    features = [centers[labels] + 0.05 * random.normal(size=(*labels.shape, 5)) for labels in (here, there)]
    found = cluster(features, 3, seed=1)
    pairs = {
        (a, b)
        for labels, got in zip((here, there), found, strict=True)
        for a, b in zip(labels.flat, got.flat, strict=True)
    }
    assert len(pairs) == 3
    again = cluster(features, 3, seed=1)
    np.testing.assert_array_equal(found[0], again[0])
    with pytest.raises(UsageError, match="1 to 9"):
        cluster(features, 0)
