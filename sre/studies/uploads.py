"""What does a picture of one's own look like to a network?"""

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sre.errors import ImageError

LIMIT_BYTES = 20_000_000
LIMIT_PIXELS = 50_000_000
# Not all that Pillow reads: some of its readers start other programs, as that of EPS does.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def read_picture(data: bytes, *, channels: int, side_px: int) -> np.ndarray:
    """Bring any picture to uint8 (side, side) or (side, side, 3).

    Turned upright as its EXIF says, laid on black where it is transparent, cropped to the central
    square, resized. Grey levels of more than 8 bits are spread over the range that they use.

    Raises: ImageError: too large, or no picture that can be read
    """
    if len(data) > LIMIT_BYTES:
        raise ImageError(
            f"the file has {len(data) / 1e6:.0f} MB, at most {LIMIT_BYTES / 1e6:.0f} MB are taken; "
            "make it smaller"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files; faults still raise
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > LIMIT_PIXELS:
                    raise ImageError(
                        f"the picture has {picture.width} x {picture.height} pixels, at most "
                        f"{LIMIT_PIXELS / 1e6:.0f} million are taken; make it smaller"
                    )
                picture.load()
                upright = _to_rgb(ImageOps.exif_transpose(picture))
            square = ImageOps.fit(upright, (side_px, side_px), Image.Resampling.LANCZOS)
    except ImageError:
        raise
    except (
        UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError,
        EOFError, IndexError, KeyError, TypeError, AttributeError, ZeroDivisionError, MemoryError,
        OverflowError, RuntimeError, struct.error,
    ) as error:  # what Pillow's readers raise on damaged files  # fmt: skip
        raise ImageError(
            "the file is no picture that can be read; choose a PNG, JPEG, WebP, GIF, BMP or TIFF"
        ) from error
    return np.asarray(square if channels == 3 else square.convert("L"))


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
        picture = _spread(np.asarray(picture, dtype=np.float32))
    if "A" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, picture).convert("RGB")
    return picture.convert("RGB")


def _spread(values: np.ndarray) -> Image.Image:
    is_finite = np.isfinite(values)
    low = max(float(values.min(where=is_finite, initial=np.inf)), -1e37)
    high = min(float(values.max(where=is_finite, initial=-np.inf)), 1e37)
    if low >= high:  # flat, or nothing but NaN
        return Image.new("L", values.shape[::-1])
    levels = (values.clip(low, high) - low) * (255 / (high - low))
    return Image.fromarray(np.nan_to_num(levels).round().astype(np.uint8))
