import io
import os
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasmodels.data import image_size, list_images, photo_crops, read_drawing, read_image, resized, write_image
from kerasmodels.data.images import SUFFIXES, check_photo
from kerasmodels.data.segmentation import read_annotation, read_label_map
from kerasmodels.errors import DataError, StorageError, UsageError
from tests.fuzz.corpus import ADOBE_RGB, icc_profile

RANDOM = np.random.default_rng(0)


@pytest.fixture
def photo():
    """A smooth picture, so that JPEG keeps it nearly exact."""
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([x * 4, y * 6, 255 - x * 4], axis=-1).astype("uint8")


# --- reading


def test_png_comes_back_bit_by_bit(photo, tmp_path):
    write_image(tmp_path / "a.png", photo)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), photo)


def test_jpeg_is_written_at_high_quality(photo, tmp_path):
    write_image(tmp_path / "a.jpg", photo)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - photo).mean() < 2


def test_exif_rotation_is_applied(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held turned by 90 degrees
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif, quality=95)
    turned = read_image(tmp_path / "a.jpg")
    assert turned.shape == (60, 40, 3)
    assert np.abs(turned.astype(int) - np.rot90(photo, -1)).mean() < 2


def test_gray_becomes_three_equal_channels(tmp_path):
    gray = RANDOM.integers(0, 256, (8, 9), dtype="uint8")
    Image.fromarray(gray).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.stack([gray] * 3, axis=-1))


def test_16_bit_is_scaled_not_cut(tmp_path):
    deep = (np.arange(256, dtype="uint16") * 257).reshape(16, 16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], np.arange(256).reshape(16, 16))


def test_dark_16_bit_stays_dark(tmp_path):
    """A 16-bit picture without bright pixels must not be taken for an 8-bit one."""
    Image.fromarray(np.full((4, 4), 200, "uint16")).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").max() <= 1


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.zeros((4, 4, 4), "uint8")
    rgba[:2, :, :] = (255, 0, 0, 255)
    rgba[2:, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read[0, 0].tolist() == [255, 0, 0]
    assert read[3, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("mode", "color"), [("L", 0), ("P", 0), ("RGB", (0, 0, 0))])
def test_a_transparent_color_is_laid_over_white(mode, color, tmp_path):
    gray = np.zeros((4, 4), "uint8")
    gray[:2] = 100
    Image.fromarray(gray).convert(mode).save(tmp_path / "a.png", transparency=color)
    assert read_image(tmp_path / "a.png")[:, 0, 0].tolist() == [100, 100, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA"])
def test_every_mode_becomes_rgb(mode, photo, tmp_path):
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    Image.fromarray(photo).convert(mode).save(tmp_path / f"a.{suffix}")
    read = read_image(tmp_path / f"a.{suffix}")
    assert read.shape == photo.shape
    assert read.dtype == np.uint8


def test_first_frame_of_an_animation(photo, tmp_path):
    frames = [Image.fromarray(photo), Image.fromarray(255 - photo)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), photo)


def test_one_pixel(tmp_path):
    write_image(tmp_path / "a.png", np.full((1, 1, 3), 9, "uint8"))
    assert read_image(tmp_path / "a.png").tolist() == [[[9, 9, 9]]]


def test_max_side_shrinks_and_never_enlarges(photo, tmp_path):
    write_image(tmp_path / "a.jpg", np.kron(photo, np.ones((20, 20, 1), "uint8")))
    assert read_image(tmp_path / "a.jpg", max_side=300).shape == (200, 300, 3)
    assert read_image(tmp_path / "a.jpg", max_side=9999).shape == (800, 1200, 3)


# --- EXIF


def _ifd(*entries):
    """EXIF of (tag, type, count, value), little endian; a value of more than four bytes lies at offset 8 + ..."""
    entries = [struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(20)


def _saved(path, picture, exif):
    """A picture with EXIF as it is; of a TIFF it is written into the file's own directory."""
    image = Image.fromarray(picture)
    if path.suffix != ".tif":
        image.save(path, exif=b"Exif\0\0" + exif, **({"lossless": True} if path.suffix == ".webp" else {}))
        return
    plain = io.BytesIO()
    image.save(plain, "TIFF")
    content = bytearray(plain.getvalue())
    start = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, start)[0]
    own = [bytes(content[start + 2 + 12 * i : start + 14 + 12 * i]) for i in range(count)]
    more = [exif[10 + 12 * i : 22 + 12 * i] for i in range(struct.unpack_from("<H", exif, 8)[0])]
    struct.pack_into("<I", content, 4, len(content))
    entries = sorted({struct.unpack_from("<H", entry)[0]: entry for entry in own + more}.items())
    content += struct.pack("<H", len(entries)) + b"".join(entry for _, entry in entries) + bytes(4)
    path.write_bytes(content)


_TURNED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_in_every_format_that_has_it(suffix, photo, tmp_path):
    """1 to 8 turn pixels and size; what is none of these turns neither."""
    for told in (*range(10), 65535):
        path = tmp_path / f"{told}{suffix}"
        _saved(path, photo, _ifd((0x0112, 3, 1, struct.pack("<H", told))))
        read, wanted = read_image(path), _TURNED.get(told, _TURNED[1])(photo)
        assert image_size(path) == read.shape[:2] == wanted.shape[:2], told
        assert np.abs(read.astype(int) - wanted).mean() < (2 if suffix == ".jpg" else 1e-9), told


_SIX = (0x0112, 3, 1, struct.pack("<H", 6))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize(
    ("entries", "turned"),
    [
        ([(0x0112, 2, 2, b"6\0")], False),
        ([(0x0112, 5, 1, struct.pack("<I", 8))], False),
        ([(0x0112, 7, 1, b"\6")], False),
        ([_SIX, (0x011A, 2, 3, b"72\0")], True),
        ([_SIX, (0x8769, 2, 2, b"x\0")], True),
        ([_SIX, (0x8769, 4, 1, struct.pack("<I", 0xFFFFFF))], True),
        ([_SIX, (0x8825, 4, 1, bytes(4))], True),
        ([_SIX, (0x9C9B, 3, 1, b"\xff\xff")], True),
        ([_SIX, (0xA005, 2, 2, b"1\0")], True),
    ],
)
def test_odd_exif_spoils_no_picture(suffix, entries, turned, photo, tmp_path):
    path = tmp_path / f"a{suffix}"
    _saved(path, photo, _ifd(*entries))
    read, wanted = read_image(path), np.rot90(photo, -1) if turned else photo
    assert image_size(path) == read.shape[:2] == wanted.shape[:2]
    assert np.abs(read.astype(int) - wanted).mean() < 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("exif", [b"garbage", b"\0\x08\0\2\1\x12\0\3", b"II*\0\xff\xff\xff\xff", b"MM\0*\0"])
def test_exif_that_is_none_spoils_no_picture(suffix, exif, photo, tmp_path):
    _saved(tmp_path / f"a{suffix}", photo, exif)
    assert read_image(tmp_path / f"a{suffix}").shape == photo.shape
    assert image_size(tmp_path / f"a{suffix}") == photo.shape[:2]


def test_orientation_told_by_xmp_turns_size_and_pixels(photo, tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for name, extra in (("a.jpg", {"xmp": xmp}), ("a.webp", {"xmp": xmp}), ("a.tif", {"tiffinfo": {700: xmp}})):
        Image.fromarray(photo).save(tmp_path / name, **extra)
        assert image_size(tmp_path / name) == read_image(tmp_path / name).shape[:2] == (60, 40)


# --- numbers of more than 8 bits


@pytest.mark.parametrize("orientation", [1, 6])
def test_floats_are_0_to_1(orientation, tmp_path):
    ramp = np.tile(np.linspace(0, 1, 52, dtype="float32"), (3, 1))
    for number, scale in enumerate((1, 1.05, 0.2)):
        Image.fromarray(scale * ramp).save(tmp_path / f"{number}.tif", tiffinfo={0x0112: orientation})
        read = read_image(tmp_path / f"{number}.tif")[..., 0]
        wanted = np.clip(np.rint(255 * scale * ramp), 0, 255)
        np.testing.assert_allclose(read, np.rot90(wanted, -1) if orientation == 6 else wanted, atol=1)


def test_integers_of_32_bits_are_0_to_255(tmp_path):
    levels = np.arange(256, dtype="int32").reshape(16, 16)
    for values in (levels, levels // 2, 0 * levels):
        Image.fromarray(values).save(tmp_path / "a.tif")
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], values)


def test_twelve_bits_in_a_tiff(tmp_path):
    """Rows of two numbers of 12 bits, packed into three bytes."""
    entries = [(256, 2), (257, 2), (258, 12), (259, 1), (262, 1), (273, 200), (277, 1), (278, 2), (279, 6)]
    head = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + head + bytes(4)
    (tmp_path / "a.tif").write_bytes(content.ljust(200, b"\0") + bytes.fromhex("000fff 800400"))
    assert read_image(tmp_path / "a.tif")[..., 0].tolist() == [[0, 255], [128, 64]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, np.nan]], "float32"), "1 that are not finite"),
        (np.array([[0, np.inf]], "float32"), "1 that are not finite"),
        (np.array([[np.nan, np.nan]], "float32"), "not finite"),
        (np.array([[0, 255]], "float32"), r"Received: 0 to 255\. Save"),
        (np.array([[0, 1.5]], "float32"), r"Received: 0 to 1\.5"),
        (np.array([[-1, 1]], "float32"), "Received: -1 to 1"),
        (np.array([[0, 256]], "int32"), "Received: 0 to 256"),
        (np.array([[-1, 255]], "int32"), "Received: -1 to 255"),
        (np.array([[0, 65535]], "int32"), "do.* not tell which number is white"),
        (np.array([[0, 1]], "int32"), "Received: 0 to 1"),
    ],
)
def test_numbers_of_unknown_meaning(values, message, tmp_path):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=message) as caught:
        read_image(tmp_path / "a.tif")
    assert "a.tif" in str(caught.value)
    assert image_size(tmp_path / "a.tif") == values.shape


# --- pictures whose colors say what is what


def test_a_drawing_is_read_by_its_colors(photo, tmp_path):
    picture = np.kron(photo[::10, ::10], np.ones((4, 4, 1), "uint8"))
    Image.fromarray(picture).quantize(64, dither=Image.Dither.NONE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_drawing(tmp_path / "a.png"), read_image(tmp_path / "a.png"))
    opaque = np.concatenate([photo, np.full((40, 60, 1), 255, "uint8")], axis=-1)
    Image.fromarray(opaque).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_drawing(tmp_path / "a.png"), photo)
    Image.fromarray(photo).save(tmp_path / "a.png", transparency=(1, 2, 3))  # a color that does not occur
    np.testing.assert_array_equal(read_drawing(tmp_path / "a.png"), photo)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "1"])
def test_a_transparent_pixel_of_a_drawing(mode, tmp_path):
    gray = np.zeros((4, 5), "uint8")
    gray[:2] = 255
    image = Image.fromarray(gray).convert(mode.removesuffix("A") if mode == "LA" else mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(255 - gray // 2))
        image.save(tmp_path / "a.png")
    else:
        image.save(tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    with pytest.raises(DataError, match=r"a\.png\. Received: 50 % of it transparent"):
        read_drawing(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (4, 5, 3)


# --- photos as arrays


def test_photos_whose_numbers_are_known():
    for kind in ("uint8", "float16", "float32", "float64"):
        for white in (1.0, 255.0):
            photo = np.full((2, 3, 3), 200 if kind == "uint8" else 0.8 * white, kind)
            assert check_photo(photo, white) is photo
            check_photo(0 * photo, white)
    check_photo(np.zeros((2, 3), "uint8"), gray=True)
    check_photo(np.ones((2, 3, 3), "uint8"))


@pytest.mark.parametrize(
    ("photo", "white", "message"),
    [
        (np.full((2, 3, 3), 0.9), 255, "float64 of 0.9 to 0.9. Multiply it by 255"),
        (np.full((2, 3, 3), 90.0), 1, "Divide it by 255"),
        (np.full((2, 3, 3), 900.0), 255, "of floats of 0-255"),
        (np.full((2, 3, 3), -9.0), 255, "Received: float64 of -9 to -9"),
        (np.full((2, 3, 3), np.nan), 255, "not finite"),
        (np.full((2, 3, 3), np.inf), 1, "not finite"),
        (np.full((2, 3, 3), 9), 255, "int64 of 9 to 9. Give uint8"),
        (np.full((2, 3, 3), 60000, "uint16"), 255, "uint16 of 60000"),
        (np.full((2, 3, 3), True), 255, "bool"),
        (np.full((2, 3), 9, "uint8"), 255, r"shape \(H, W, 3\)"),
        (np.full((2, 3, 4), 9, "uint8"), 255, r"Received: shape \(2, 3, 4\)"),
        (np.zeros((0, 3, 3), "uint8"), 255, "at least one pixel"),
    ],
)
def test_photos_whose_numbers_are_in_doubt(photo, white, message):
    with pytest.raises(DataError, match=message):
        check_photo(photo, white)


def test_only_bytes_are_written(photo, tmp_path):
    with pytest.raises(DataError, match=r"uint8, 0-255, .* Received: float64 of 0 to 0\.9"):
        write_image(tmp_path / "a.tif", photo[..., 0] / photo.max())
    assert not list(tmp_path.iterdir())


# --- what cannot be read


def _jpeg(photo):
    buffer = io.BytesIO()
    Image.fromarray(np.kron(photo, np.ones((8, 8, 1), "uint8"))).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_text_named_jpg(tmp_path):
    (tmp_path / "a.jpg").write_text("Dear diary")
    with pytest.raises(DataError, match=r"not a picture .* begins with b'Dear diary'.* Expected JPEG"):
        read_image(tmp_path / "a.jpg")


def test_an_empty_file(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match="it is empty"):
        read_image(tmp_path / "a.jpg")


def test_a_truncated_jpeg(photo, tmp_path):
    (tmp_path / "a.jpg").write_bytes(_jpeg(photo)[:-2000])
    with pytest.raises(DataError, match="damaged or cut short"):
        read_image(tmp_path / "a.jpg")


def test_a_decompression_bomb(tmp_path):
    Image.new("1", (20000, 20000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="too large: at most 178,956,970 pixels"):
        read_image(tmp_path / "a.png")


def gray_16_bit_png(width, height):
    """A black PNG of 16 bits, made in pieces: hundreds of kilobytes for hundreds of megapixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes((1 + 2 * width) * 100)) for _ in range(height // 100)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_few_bytes_for_many_pixels(tmp_path):
    (tmp_path / "a.png").write_bytes(gray_16_bit_png(8000, 5000))
    for max_side in (None, 512):
        message = r"8000 x 5000 pixels of mode I;16 take 1\.1 GB to decode, and a file of 0\.1 MB may take 0\.8 GB"
        with pytest.raises(DataError, match=message + r"\. Shrink it first, or save it with 8 bits"):
            read_image(tmp_path / "a.png", max_side)
    # A flat label map is no bomb.
    Image.new("P", (7000, 7000)).save(tmp_path / "b.png")
    assert read_label_map(tmp_path / "b.png").shape == (7000, 7000)
    labels, _ = read_annotation(tmp_path / "b.png", black=True)
    assert labels.shape == (7000, 7000)
    assert not labels.any()


@pytest.mark.parametrize("kind", ["EPS", "DDS", "ICO", "PPM", "TGA", "PCX", "SGI", "JPEG2000", "PDF"])
def test_formats_that_are_not_promised(kind, photo, tmp_path):
    """Pillow knows them; PostScript would be run by another program."""
    for name in ("a.jpg", "a.png"):
        with open(tmp_path / name, "wb") as file:
            Image.fromarray(photo).save(file, kind)
        for read in (read_image, image_size, read_label_map, read_annotation):
            with pytest.raises(DataError, match="is not a picture that can be read, whatever its name says"):
                read(tmp_path / name)


def test_several_pictures_in_one_jpeg(photo, tmp_path):
    """As phones write them: Pillow has a format of its own for what follows the first."""
    first = Image.fromarray(photo)
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[first.rotate(180)])
    assert read_image(tmp_path / "a.jpg").shape == photo.shape


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="no picture at"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="Received the folder"):
        read_image(tmp_path)


# --- writing


@pytest.mark.parametrize("name", ["a.docx", "a.psd", "a.xbm", "a"])
def test_unknown_suffix(name, photo, tmp_path):
    """Also of formats that Pillow can only read, or not write in color."""
    with pytest.raises(UsageError, match=r"out\.png"):
        write_image(tmp_path / name, photo)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_written_and_read(suffix, photo, tmp_path):
    write_image(tmp_path / f"a{suffix.upper()}", photo)
    (found,) = list_images(tmp_path)
    assert np.abs(read_image(found).astype(int) - photo).mean() < 8


def test_a_full_disk_leaves_the_old_file(photo, tmp_path):
    target = tmp_path / "a.png"
    write_image(target, photo)
    before = target.read_bytes()
    noise = RANDOM.integers(0, 256, (600, 600, 3), dtype="uint8")
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            write_image(target, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_file_where_a_folder_is_needed(photo, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="a file is where a folder is needed"):
        write_image(tmp_path / "file" / "a.png", photo)


# --- folders and streams


@pytest.fixture
def folder(photo, tmp_path):
    for i in range(5):
        write_image(tmp_path / "photos" / f"sub{i % 2}" / f"{i}.png", np.roll(photo, 10 * i, axis=1))
    (tmp_path / "photos" / "notes.txt").write_text("not a picture")
    return tmp_path / "photos"


def test_list_images(folder):
    assert [p.name for p in list_images(folder)] == ["0.png", "2.png", "4.png", "1.png", "3.png"]


def test_list_images_of_nothing(tmp_path):
    with pytest.raises(DataError, match="no pictures in"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        list_images(tmp_path / "absent")


def test_stream_continues_where_it_was_left(folder):
    whole = list(photo_crops(folder, 32, 2, seed=3).take(7).as_numpy_iterator())
    rest = list(photo_crops(folder, 32, 2, seed=3, start=4).take(3).as_numpy_iterator())
    np.testing.assert_array_equal(whole[4:], rest)
    assert whole[0].shape == (2, 32, 32, 3)
    assert whole[0].dtype == np.float32


def test_stream_depends_on_the_seed(folder):
    one, two = (next(photo_crops(folder, 32, 2, seed=s).as_numpy_iterator()) for s in (1, 2))
    assert np.abs(one - two).max() > 10


def test_an_epoch_shows_every_photo_once(tmp_path):
    for i in range(6):
        write_image(tmp_path / f"{i}.png", np.full((40, 50, 3), 40 * i, "uint8"))
    shades = [b[0, 0, 0, 0] for b in photo_crops(tmp_path, 32, 1, seed=5).take(18).as_numpy_iterator()]
    epochs = [shades[i : i + 6] for i in (0, 6, 12)]
    assert [sorted(e) for e in epochs] == [[0, 40, 80, 120, 160, 200]] * 3
    assert epochs[0] != epochs[1]


def test_crops_show_the_photo_at_its_scale(tmp_path):
    """A crop is 60% to 100% of the shorter side: a slope of 1 a pixel becomes 0.6 to 1 times 100 / 32 a pixel."""
    ramp = np.broadcast_to(np.arange(100, dtype="uint8")[:, None, None], (100, 140, 3))
    write_image(tmp_path / "a.png", ramp)
    for crop in photo_crops(tmp_path, 32, 1, seed=1).take(20).as_numpy_iterator():
        slope = np.diff(crop[0, 4:-4, 16, 0]).mean()
        assert 0.55 * 100 / 32 < slope < 1.02 * 100 / 32


def test_a_wrong_file_in_the_folder_is_named_before_training(folder):
    (folder / "bad.jpg").write_text("Dear diary")
    with pytest.raises(DataError, match=r"bad\.jpg is not a picture"):
        photo_crops(folder, 32, 2)


def test_a_cut_off_file_is_named_when_it_is_decoded(photo, tmp_path):
    (tmp_path / "half.jpg").write_bytes(_jpeg(photo)[:-2000])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"half\.jpg is damaged or cut short"):
        next(photo_crops(tmp_path, 32, 1).as_numpy_iterator())


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_from_the_header_is_that_of_the_upright_picture(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (9, 5)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == read_image(tmp_path / "a.jpg").shape[:2]


def test_size_of_no_picture(tmp_path):
    with pytest.raises(DataError, match="no picture at"):
        image_size(tmp_path / "none.jpg")


def test_resized_keeps_values_beyond_0_to_255():
    picture = np.full((4, 6, 3), (-30.0, 100.0, 300.0), "float32")
    np.testing.assert_allclose(resized(picture, 7, 5), np.broadcast_to(picture[:1, :1], (7, 5, 3)), rtol=1e-5)
    assert resized(picture[..., 0], 3, 2).shape == (3, 2)


def test_hidden_companions_and_links_that_lead_back(tmp_path):
    photo = Image.new("RGB", (4, 4))
    for name in ("b/2.png", "a/1.jpg", "__MACOSX/a/._1.jpg", "a/._1.jpg", ".Trash/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        photo.save(tmp_path / name)
    (tmp_path / "a" / "._1.jpg").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "b" / "beside").symlink_to("../a")
    found = [str(path.relative_to(tmp_path)) for path in list_images(tmp_path)]
    assert found == ["a/1.jpg", "b/2.png", "b/beside/1.jpg"]
    assert [path.name for path in list_images(tmp_path / "a")] == ["1.jpg"]
    # A hidden folder that is named is meant.
    assert [path.name for path in list_images(tmp_path / ".Trash")] == ["3.png"]


def test_colors_of_a_profile_become_those_of_srgb(tmp_path, capsys):
    """Beside the formulas of Adobe RGB (1998) and IEC 61966-2-1."""
    colors = np.random.default_rng(0).integers(0, 256, (16, 16, 3), "uint8")
    alpha = np.full((16, 16, 1), 255, "uint8")
    profile = icc_profile(ADOBE_RGB, 2.2)
    Image.fromarray(colors).save(tmp_path / "wide.png", icc_profile=profile)
    Image.fromarray(np.concatenate([colors, alpha], -1)).save(tmp_path / "clear.png", icc_profile=profile)
    srgb = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])
    linear = np.clip((colors / 255) ** 2.2 @ ADOBE_RGB @ np.linalg.inv(srgb), 0, 1)
    wanted = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    for name in ("wide.png", "clear.png"):
        assert np.abs(read_image(tmp_path / name) - wanted).max() < 1.5
    # What its colors mean is not a matter of their looks.
    np.testing.assert_array_equal(read_drawing(tmp_path / "wide.png"), colors)
    assert capsys.readouterr().err == ""
    Image.fromarray(colors).save(tmp_path / "broken.png", icc_profile=profile[:150])
    for _ in range(2):
        np.testing.assert_array_equal(read_image(tmp_path / "broken.png"), colors)
    assert capsys.readouterr().err.count("broken.png is damaged") == 1


@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_beyond_the_limit_are_read_where_they_are_shrunk(tmp_path, monkeypatch, progressive):
    picture = Image.new("RGB", (900, 700), (200, 100, 50))
    picture.save(tmp_path / "large.jpg", progressive=progressive)
    picture.save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300_000)
    with pytest.raises(DataError, match="at most 600,000 pixels"):
        read_image(tmp_path / "large.jpg")
    with pytest.raises(DataError, match="at most 600,000 pixels"):
        read_image(tmp_path / "large.png", max_side=90)
    if progressive:
        with pytest.raises(DataError, match="at most 600,000 pixels"):
            read_image(tmp_path / "large.jpg", max_side=90)
    else:
        found = read_image(tmp_path / "large.jpg", max_side=90)
        assert found.shape == (70, 90, 3)
        assert np.abs(found.astype(int) - (200, 100, 50)).max() <= 2


@pytest.mark.parametrize(("name", "side"), [("a.webp", 16383), ("a.jpg", 65500), ("a.GIF", 65535)])
def test_formats_with_limits(tmp_path, name, side):
    write_image(tmp_path / name, np.zeros((1, side), "uint8"))
    with pytest.raises(UsageError, match=f"where {side:,} a side are the most"):
        write_image(tmp_path / name, np.zeros((1, side + 1), "uint8"))
    write_image(tmp_path / "a.png", np.zeros((1, side + 1), "uint8"))
