"""What does a picture of one's own look like to a network?"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sre.errors import ImageError

LIMIT_BYTES = 20_000_000
LIMIT_PIXELS = 50_000_000


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
            with Image.open(io.BytesIO(data)) as picture:
                if picture.width * picture.height > LIMIT_PIXELS:
                    raise ImageError(
                        f"the picture has {picture.width} x {picture.height} pixels, at most "
                        f"{LIMIT_PIXELS / 1e6:.0f} million are taken; make it smaller"
                    )
                picture.load()
                upright = ImageOps.exif_transpose(picture)
    except ImageError:
        raise
    except (
        UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError,
        EOFError, IndexError, KeyError, TypeError, AttributeError, ZeroDivisionError, MemoryError,
        OverflowError, NotImplementedError,
    ) as error:  # what Pillow's readers raise on damaged files  # fmt: skip
        raise ImageError(
            "the file is no picture that can be read; choose a PNG, JPEG, WebP, GIF, BMP or TIFF"
        ) from error
    square = ImageOps.fit(_to_rgb(upright), (side_px, side_px), Image.Resampling.LANCZOS)
    return np.asarray(square if channels == 3 else square.convert("L"))


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        span = max(float(np.ptp(values)), 1e-12)
        picture = Image.fromarray(((values - values.min()) * (255 / span)).astype(np.uint8))
    if "A" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, picture).convert("RGB")
    return picture.convert("RGB")
