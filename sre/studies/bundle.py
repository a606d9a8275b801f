"""An orbit as the browser takes it: one JSON object, pictures on sheets, at most 400 KB.

Two thousand maps of 28 px do not fit into that unharmed. The mean over the channels, which the page
shows first, keeps its pixels; single channels are averaged down to 16 px a side or less; and the
sheets are AVIF, which at this size keeps more than WebP or JPEG, as coarse as the limit demands.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sre.protocols import PROTOCOLS
from sre.resnet import STAGES
from sre.studies.naming import TITLES, kind_of, tell_apart
from sre.studies.orbit import ModelView, OrbitView, StageView

VERSION = 6
LIMIT_BYTES, SPARE_BYTES = 400_000, 1_000  # of the bundle; for the sample's name, put in later
# Of AVIF: each try takes 0.2 s, so that the one that most bundles fit with comes first. Then better
# ones, each 1.35 times as large or more, while there is room; or worse ones, until it fits.
QUALITY, BETTER, WORSE = 42, (55, 70), (30, 18, 8)
STEP = 1.35
SIDES = {"mean": 32, "features": 16, "cam": 32}  # px at most, of the maps shown
INPUT_SIDE = 64  # px at most, of the turned image
PICTURE_QUALITY = 80  # of the turned image, if it fits
LOSSLESS_SIDE = 4  # px: the few pixels of the last stages matter, and cost little
# Values above this quantile of a stage are clipped: a few peaks would leave the rest in the dark.
CLIP_QUANTILE = 0.999

Json = dict[str, Any]

# The maps of a stage that share a scale and a sheet, each (channels, angles, h, h).
_KINDS: Mapping[str, Callable[[StageView], np.ndarray]] = {
    "mean": lambda stage: stage.features[:1],
    "features": lambda stage: stage.features[1:],
    "cam": lambda stage: stage.cam[None],
}


def pack_orbit(view: OrbitView, *, key: str, dataset: Json, sample: Json) -> str:
    """Write an orbit as JSON text; pictures lose detail, if they must, to stay within the limit.

    Raises: ValueError: even the coarsest pictures do not fit
    """
    scales = {kind: _shared_scales(view, kind) for kind in _KINDS}
    with ThreadPoolExecutor(2) as pool:  # the encoder lets go of the interpreter's lock

        def write(quality: int) -> str:  # ASCII
            bundle = _bundle(view, key, dataset, sample, scales, quality, pool)
            return json.dumps(bundle, separators=(",", ":"), allow_nan=False)

        return _best_fitting(write, LIMIT_BYTES - SPARE_BYTES)


def _best_fitting(write: Callable[[int], str], limit: int) -> str:
    text = write(QUALITY)
    if len(text) > limit:
        for quality in WORSE:
            text = write(quality)
            if len(text) <= limit:
                return text
        raise ValueError(
            f"the bundle takes {len(text)} bytes at the lowest quality, over {LIMIT_BYTES}"
        )
    for quality in BETTER:
        larger = write(quality) if len(text) * STEP <= limit else ""
        if not larger or len(larger) > limit:
            break
        text = larger
    return text


def _bundle(
    view: OrbitView,
    key: str,
    dataset: Json,
    sample: Json,
    scales: Mapping[str, Mapping[str, tuple[float, float]]],
    quality: int,
    pool: ThreadPoolExecutor,
) -> Json:
    protocol = PROTOCOLS[view.protocol]
    jobs = [
        [
            {
                kind: pool.submit(
                    _grey_sheet, maps_of(stage), SIDES[kind], scales[kind][stage.name], quality
                )
                for kind, maps_of in _KINDS.items()
            }
            for stage in model.stages
        ]
        for model in view.models
    ]
    cards = [model.card for model in view.models]
    titles = tell_apart(cards, [kind_of(card.model, card.arm) for card in cards])
    shorts = tell_apart(cards, [TITLES[card.arm][1] for card in cards])
    models = [
        _model(model, protocol.side_of(model.card.side_px), title, short, row)
        for model, title, short, row in zip(view.models, titles, shorts, jobs, strict=True)
    ]
    targets = {m.target for m in view.models}
    picture = picture_sheet(
        view.seen[..., 0] if view.seen.shape[-1] == 1 else view.seen,
        quality=min(PICTURE_QUALITY, 4 * quality),
    )
    return {
        "version": VERSION,
        "key": key,
        "dataset": dataset,
        "sample": sample,
        "protocol": {
            "name": protocol.name,
            "title": protocol.title,
            "description": protocol.description,
        },
        "angles_deg": [round(a) for a in view.angles_deg.tolist()],
        "side": picture["side"],
        "input": picture,
        "target": {"class": view.models[0].target, "same": len(targets) == 1},
        "headline": view.headline,
        "interpolation_error": _rounded(view.interpolation_error),
        "scales": scales,
        "stages": list(STAGES),
        "models": models,
    }


def _model(
    model: ModelView,
    side_px: int,
    title: str,
    short: str,
    jobs: Sequence[Mapping[str, Future[Json]]],
) -> Json:
    card = model.card
    sheets = [{name: job.result() for name, job in of_stage.items()} for of_stage in jobs]
    confidence = model.confidence(model.target)
    return {
        "name": card.model,
        "arm": card.arm,
        "title": title,
        "short": short,
        "parameters": card.parameters,
        "multiply_adds": card.multiply_adds,
        "side_px": side_px,
        "target": model.target,
        "probabilities": [[round(p, 4) for p in row] for row in model.probabilities.tolist()],
        "predictions": model.predictions.tolist(),
        "changes": model.changes,
        "consistency": round(model.consistency, 4),
        "worst_angle_deg": float(np.argmin(confidence) * 5),
        "worst_confidence": round(float(confidence.min()), 4),
        "test": dict(card.test),
        "stages": [
            {
                "name": stage.name,
                "side": stage.cam.shape[-1],
                "channels": ["mean", *stage.channels],
                **of_stage,
                "equivariance_error": _rounded(stage.equivariance_error),
            }
            for stage, of_stage in zip(model.stages, sheets, strict=True)
        ],
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{v:.3g}") for v in values.tolist()]


def _shared_scales(view: OrbitView, kind: str) -> dict[str, tuple[float, float]]:
    """One colour scale a stage and kind, for all angles and networks, as they are compared."""
    scales = {}
    for i, name in enumerate(STAGES):
        values = [_KINDS[kind](m.stages[i]) for m in view.models]
        # All features come out of a ReLU and all CAMs are cut at 0, so that scales begin there.
        high = max(float(np.quantile(v[..., ::2], CLIP_QUANTILE)) for v in values)
        scales[name] = (0.0, float(f"{high:.4g}") or 1e-6)
    return scales


def _grey_sheet(maps: np.ndarray, most_px: int, scale: tuple[float, float], quality: int) -> Json:
    """Lay maps (channels, angles, h, h) out on a grid, as grey values over the scale.

    Cells are padded to whole blocks of the codec, by repeating the edge, or one map would bleed
    into the next.
    """
    low, high = scale
    maps = _reduced(maps, most_px)
    side = maps.shape[-1]
    grey = ((maps.reshape(-1, side, side) - low) * (255 / (high - low))).clip(0, 255).round()
    tile = -(-side // 4) * 4
    grey = np.pad(grey.astype(np.uint8), ((0, 0), (0, tile - side), (0, tile - side)), mode="edge")
    sheet = _sheet(grey, tile, side, None if side <= LOSSLESS_SIDE else quality)
    return sheet | {"low": low, "high": high}


def _reduced(maps: np.ndarray, most_px: int) -> np.ndarray:
    """Average (c, n, h, h) down to a whole fraction of its side, at most ``most_px``."""
    side = maps.shape[-1]
    factor = -(-side // most_px)
    if factor == 1:
        return maps
    # Adaptive windows are symmetric at any side, so that the reduced maps turn as the maps do.
    return F.adaptive_avg_pool2d(torch.from_numpy(maps), -(-side // factor)).numpy()


def picture_sheet(images: np.ndarray, *, quality: int = PICTURE_QUALITY) -> Json:
    """Lay pictures, uint8 (n, S, S) or (n, S, S, 3), out on a grid, nearly without visible loss."""
    colours = images if images.ndim == 4 else images[..., None]
    planes = np.ascontiguousarray(colours.transpose(3, 0, 1, 2)).astype(np.float32)
    small = _reduced(planes, INPUT_SIDE).round().astype(np.uint8).transpose(1, 2, 3, 0)
    side = small.shape[1]
    tile = -(-side // 4) * 4
    padded = np.pad(small, ((0, 0), (0, tile - side), (0, tile - side), (0, 0)), mode="edge")
    return _sheet(padded if images.ndim == 4 else padded[..., 0], tile, side, quality)


def _sheet(tiles: np.ndarray, tile: int, side: int, quality: int | None) -> Json:
    count = len(tiles)
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    blank = np.zeros((rows * columns - count, *tiles.shape[1:]), np.uint8)
    grid = np.concatenate([tiles, blank]).reshape(rows, columns, *tiles.shape[1:])
    grid = grid.swapaxes(1, 2).reshape(rows * tile, columns * tile, *tiles.shape[3:])
    return {
        "src": encode(grid, quality),
        "tile": tile,
        "side": side,
        "columns": columns,
        "count": count,
    }


def encode(picture: np.ndarray, quality: int | None) -> str:
    """Encode (H, W) or (H, W, 3) as a data URL: AVIF, or with quality None lossless WebP."""
    out = io.BytesIO()
    image = Image.fromarray(picture)
    if quality is None:
        image.save(out, "WEBP", lossless=True, quality=0, method=0)
    else:
        # Without planes of colour where there is none: they decode to nothing, but take their time.
        planes = "4:0:0" if picture.ndim == 2 else "4:4:4"
        image.save(out, "AVIF", quality=quality, speed=10, max_threads=1, subsampling=planes)
    kind = "webp" if quality is None else "avif"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
