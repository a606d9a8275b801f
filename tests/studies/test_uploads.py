import io
import random
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from sre.errors import ImageError
from sre.studies.uploads import FORMATS, LIMIT_BYTES, LIMIT_PIXELS, read_picture

NO_PICTURE = "^the file is no picture that can be read; choose a PNG, JPEG, WebP, GIF, BMP or TIFF$"
LEFT, RIGHT = (200, 40, 40), (40, 40, 200)


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """Draw a picture whose left is red and whose right is blue."""
    picture = Image.new("RGB", (width, height), LEFT)
    picture.paste(RIGHT, (width // 2, 0, width, height))
    return picture


def stored(picture: Image.Image, format_name: str = "PNG", **settings: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, format_name, **settings)
    return out.getvalue()


def read(data: bytes, *, channels: int = 3) -> np.ndarray:
    """Read a picture at 28 px and check its kind."""
    found = read_picture(data, channels=channels, side_px=28)
    assert found.shape == ((28, 28, 3) if channels == 3 else (28, 28))
    assert found.dtype == np.uint8
    return found


def assert_colours(found: np.ndarray, left: tuple, right: tuple, *, within: int = 4) -> None:
    for colour, part in ((left, found[4:24, 2:12]), (right, found[4:24, 16:26])):
        assert np.abs(part.astype(int) - np.array(colour)).max() <= within


def refuse(data: bytes, message: str = NO_PICTURE) -> None:
    for channels in (1, 3):
        with pytest.raises(ImageError, match=message):
            read_picture(data, channels=channels, side_px=28)


# What is a picture


@pytest.mark.parametrize(
    ("format_name", "settings"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("PPM", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG2000", {}),
        ("AVIF", {"quality": 95}),
        ("MPO", {"quality": 95, "subsampling": 0}),
        ("ICO", {"sizes": [(60, 60)]}),
    ],
)
def test_formats(format_name, settings):
    data = stored(halves(60, 60), format_name, **settings)
    assert_colours(read(data), LEFT, RIGHT)
    assert_colours(read(data, channels=1)[..., None], (88,), (58,))


def test_the_formats_are_known_to_pillow():
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
    # Their readers start other programs or parse whole documents.
    assert not {"EPS", "WMF", "PSD", "PDF"} & set(FORMATS)


GREY = [(128, 128, 128), (255, 255, 255)]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1"])
def test_modes_of_a_png(mode):
    picture = Image.new("L", (40, 40), 255)
    picture.paste(0 if mode == "1" else 128, (0, 0, 20, 40))
    found = read(stored(picture.convert(mode)))
    assert_colours(found, (0, 0, 0) if mode == "1" else GREY[0], GREY[1])


@pytest.mark.parametrize(
    ("mode", "format_name"),
    [("CMYK", "TIFF"), ("CMYK", "JPEG"), ("YCbCr", "JPEG"), ("LAB", "TIFF"), ("RGBX", "TIFF")],
)
def test_other_colour_spaces(mode, format_name):
    if mode == "LAB":  # a grey's a and b are 128
        picture = Image.merge("LAB", [Image.new("L", (40, 40), level) for level in (137, 128, 128)])
        assert_colours(read(stored(picture, format_name)), GREY[0], GREY[0], within=6)
    else:
        settings = {"quality": 95} if format_name == "JPEG" else {}
        data = stored(halves().convert(mode), format_name, **settings)
        assert_colours(read(data), LEFT, RIGHT, within=6)


@pytest.mark.parametrize(
    ("dtype", "format_name", "low", "high"),
    [
        (np.uint16, "PNG", 1000, 3000),
        (np.uint16, "TIFF", 0, 65535),
        (np.int32, "TIFF", -70_000, 70_000),
        (np.float32, "TIFF", -0.001, 0.002),
        (np.float32, "TIFF", -3e38, 3e38),
    ],
)
def test_deep_greys_are_spread_over_the_range_they_use(dtype, format_name, low, high):
    values = np.full((40, 40), low, dtype)
    values[:, 20:] = high
    found = read(stored(Image.fromarray(values), format_name))
    assert_colours(found, (0, 0, 0), (255, 255, 255))


def test_numbers_that_are_none_do_not_spoil_the_rest():
    values = np.zeros((40, 40), np.float32)
    values[:, 20:] = 10
    values[0, 0], values[0, 39], values[39, 39] = np.nan, np.inf, -np.inf
    assert_colours(read(stored(Image.fromarray(values), "TIFF")), (0, 0, 0), (255, 255, 255))
    for flat in (np.nan, np.inf, 7.0):
        values[:] = flat
        assert not read(stored(Image.fromarray(values), "TIFF")).any()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_what_is_transparent_becomes_black(mode):
    settings = {}
    if mode in ("RGBA", "LA"):
        picture = Image.new(mode, (40, 40), (255,) * (len(mode) - 1) + (0,))
        picture.paste((255,) * len(mode), (20, 0, 40, 40))
    else:
        picture = Image.new(mode, (40, 40), 0 if mode == "P" else "white")
        picture.paste(1 if mode == "P" else "black", (20, 0, 40, 40))
        if mode == "P":
            picture.putpalette([255, 0, 0, 255, 255, 255])
        settings["transparency"] = {"P": 0, "RGB": (255, 255, 255), "L": 255}[mode]
    found = read(stored(picture, **settings))
    black = (0, 0, 0)
    assert_colours(found, black, (255,) * 3 if mode in ("RGBA", "LA", "P") else black)


def test_half_transparent_is_half_as_bright():
    picture = Image.new("RGBA", (30, 30), (255, 255, 255, 128))
    assert_colours(read(stored(picture)), (128,) * 3, (128,) * 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_their_exif_says(orientation):
    upright = halves(40, 40)
    upright.paste((255, 255, 255), (0, 0, 10, 10))  # a corner, upper left
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    held = upright.transpose(inverse[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_array_equal(read(stored(held, exif=exif)), read(stored(upright)))


def test_the_central_square_is_taken():
    wide = Image.new("RGB", (120, 40), "black")
    wide.paste(halves(40, 40), (40, 0))
    assert_colours(read(stored(wide)), LEFT, RIGHT)
    tall = Image.new("RGB", (40, 99), "black")
    tall.paste(halves(40, 41), (0, 29))
    assert_colours(read(stored(tall)), LEFT, RIGHT)


def test_an_image_of_the_right_side_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    assert_array_equal(read(stored(Image.fromarray(pixels))), pixels)
    assert_array_equal(read(stored(Image.fromarray(pixels[..., 0])), channels=1), pixels[..., 0])


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (3000, 2999)])
def test_any_size(size):
    picture = Image.new("L", size, 77)
    assert (read(stored(picture, compress_level=1)) == 77).all()


def test_of_an_animation_the_first_picture_is_taken():
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    for format_name in ("GIF", "PNG", "WEBP", "TIFF"):
        settings = {"lossless": True} if format_name == "WEBP" else {}
        data = stored(frames[0], format_name, save_all=True, append_images=frames[1:], **settings)
        assert_colours(read(data), (255, 0, 0), (255, 0, 0))


# What is none


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
        b"<!doctype html><script>alert(1)</script>",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"RIFF\0\0\0\0WEBP",
        b"BM" + b"\0" * 60,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        b"PK\x03\x04" + b"\0" * 40,
        bytes(range(256)) * 9,
    ],
    ids=lambda data: repr(data[:9]),
)
def test_files_that_are_no_picture(data):
    refuse(data)


def test_formats_that_are_not_taken():
    refuse(stored(halves(), "EPS"))
    refuse(stored(halves(), "PDF"))


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_pictures(format_name, share):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    data = stored(Image.fromarray(pixels), format_name)
    refuse(data[: int(share * len(data))])


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(width: int, height: int) -> bytes:
    """A few bytes that claim to be a picture of that size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_too_many_pixels_are_refused_unread():
    assert LIMIT_PIXELS == 50_000_000
    refuse(
        bomb(10_000, 5_001),
        "^the picture has 10000 x 5001 pixels, at most 50 million are taken; make it smaller$",
    )
    refuse(bomb(30_000, 30_000))  # Pillow's own limit comes first
    refuse(bomb(2**31 - 1, 2**31 - 1))
    refuse(bomb(0, 10))
    refuse(bomb(10, 10))  # too few bytes for its pixels


def test_too_many_bytes_are_refused():
    message = "^the file has 21 MB, at most 20 MB are taken; make it smaller$"
    refuse(b"\0" * 21_000_000, message)
    with pytest.raises(ImageError, match="no picture"):
        read_picture(b"\0" * LIMIT_BYTES, channels=3, side_px=28)


def test_text_bombs_are_refused():
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 80_000_000))
    data = stored(halves())
    refuse(data[:33] + text * 3 + data[33:])


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_damaged_bytes_are_refused_or_harmless(format_name):
    """Whatever Pillow's readers raise on them, it comes out as a sentence."""
    exif = Image.Exif()
    exif[0x0112] = 6
    settings = {} if format_name in ("GIF", "BMP") else {"exif": exif}
    whole = stored(halves(24, 20), format_name, **settings)
    dice = random.Random(0)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            place = dice.randrange(min(len(data), dice.choice([60, len(data)])))
            data[place] = dice.randrange(256)
        with suppress(ImageError):
            read(bytes(data), channels=dice.choice([1, 3]))
