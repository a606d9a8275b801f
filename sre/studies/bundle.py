"""An orbit as the browser takes it: one JSON object, pictures as WebP sheets, at most 400 KB."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from sre.protocols import PROTOCOLS
from sre.resnet import STAGES
from sre.studies.orbit import ModelView, OrbitView

VERSION = 1
LIMIT_BYTES = 400_000
QUALITIES = (80, 65, 50, 35, 20, 10)  # of WebP: the first with which the bundle fits
TITLES = {
    "sre": ("SRE-CNN", "SRE"),
    "plain": ("CNN", "CNN"),
    "augmented": ("CNN + rotation", "CNN + rot."),
    "sre-augmented": ("SRE-CNN + rotation", "SRE + rot."),
}
# Values above this quantile of a stage are clipped: a few peaks would leave the rest in the dark.
CLIP_QUANTILE = 0.999

Json = dict[str, Any]


def pack_orbit(view: OrbitView, *, key: str, dataset: Json, sample: Json) -> str:
    """Write an orbit as JSON text; pictures lose detail, if they must, to stay within the limit.

    Raises: ValueError: even the coarsest pictures do not fit
    """
    scales = {kind: _shared_scales(view, kind) for kind in ("features", "cam")}
    with ThreadPoolExecutor(2) as pool:  # the encoder lets go of the interpreter's lock
        for quality in _start(view):
            text = json.dumps(
                _bundle(view, key, dataset, sample, scales, quality, pool), separators=(",", ":")
            )
            if len(text.encode()) <= LIMIT_BYTES:
                return text
    raise ValueError(
        f"the bundle takes {len(text)} bytes at the lowest quality, over {LIMIT_BYTES}"
    )


def _start(view: OrbitView) -> Sequence[int]:
    # Encoding everything only to find it too large costs as much as the networks do.
    values = sum(stage.features.size for m in view.models for stage in m.stages)
    first = 0 if values < 1_000_000 else 1 if values < 2_500_000 else 2
    return QUALITIES[first:]


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
            (
                pool.submit(
                    _grey_sheet,
                    stage.features.reshape(-1, *stage.features.shape[-2:]),
                    scales["features"][stage.name],
                    quality,
                ),
                pool.submit(_grey_sheet, stage.cam, scales["cam"][stage.name], quality),
            )
            for stage in model.stages
        ]
        for model in view.models
    ]
    models = [
        _model(model, [(f.result(), c.result()) for f, c in row])
        for model, row in zip(view.models, jobs, strict=True)
    ]
    targets = {m.target for m in view.models}
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
        "side": view.side_px,
        "input": picture_sheet(view.seen[..., 0] if view.seen.shape[-1] == 1 else view.seen),
        "target": {"class": view.models[0].target, "same": len(targets) == 1},
        "headline": view.headline,
        "interpolation_error": _rounded(view.interpolation_error),
        "scales": scales,
        "stages": list(STAGES),
        "models": models,
    }


def _model(model: ModelView, sheets: Sequence[tuple[Json, Json]]) -> Json:
    card = model.card
    title, short = TITLES[card.arm]
    confidence = model.confidence(model.target)
    return {
        "name": card.model,
        "arm": card.arm,
        "title": title,
        "short": short,
        "parameters": card.parameters,
        "multiply_adds": card.multiply_adds,
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
                "features": features,
                "cam": cam,
                "equivariance_error": _rounded(stage.equivariance_error),
            }
            for stage, (features, cam) in zip(model.stages, sheets, strict=True)
        ],
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{v:.3g}") for v in values.tolist()]


def _shared_scales(view: OrbitView, kind: str) -> dict[str, tuple[float, float]]:
    """One colour scale a stage, for all angles, channels and networks, as they are compared."""
    scales = {}
    for i, name in enumerate(STAGES):
        values = [getattr(m.stages[i], kind) for m in view.models]
        # All features come out of a ReLU and all CAMs are cut at 0, so that scales begin there.
        high = max(float(np.quantile(v[..., ::2], CLIP_QUANTILE)) for v in values)
        scales[name] = (0.0, float(f"{high:.4g}") or 1e-6)
    return scales


def _grey_sheet(maps: np.ndarray, scale: tuple[float, float], quality: int) -> Json:
    """Lay maps (n, h, w) out on a grid, as grey values over the scale.

    Cells are padded to whole blocks of the codec, by repeating the edge, or one map would bleed
    into the next; maps of up to 8 px are stored without loss, as their few pixels matter.
    """
    low, high = scale
    side = maps.shape[-1]
    grey = ((maps - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)
    tile = -(-side // 4) * 4
    grey = np.pad(grey, ((0, 0), (0, tile - side), (0, tile - side)), mode="edge")
    return _sheet(grey, tile, side, quality if side > 8 else None) | {"low": low, "high": high}


def picture_sheet(images: np.ndarray) -> Json:
    """Lay pictures, uint8 (n, S, S) or (n, S, S, 3), out on a grid, nearly without loss."""
    side = images.shape[1]
    tile = -(-side // 16) * 16
    pads = ((0, 0), (0, tile - side), (0, tile - side), (0, 0))[: images.ndim]
    return _sheet(np.pad(images, pads, mode="edge"), tile, side, 90)


def _sheet(tiles: np.ndarray, tile: int, side: int, quality: int | None) -> Json:
    count = len(tiles)
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    blank = np.zeros((rows * columns - count, *tiles.shape[1:]), np.uint8)
    grid = np.concatenate([tiles, blank]).reshape(rows, columns, *tiles.shape[1:])
    grid = grid.swapaxes(1, 2).reshape(rows * tile, columns * tile, *tiles.shape[3:])
    return {
        "src": encode_webp(grid, quality),
        "tile": tile,
        "side": side,
        "columns": columns,
        "count": count,
    }


def encode_webp(picture: np.ndarray, quality: int | None) -> str:
    """Encode (H, W) or (H, W, 3) as a data URL; quality None: without loss."""
    out = io.BytesIO()
    settings = {"lossless": True, "quality": 0} if quality is None else {"quality": quality}
    Image.fromarray(picture).save(out, "WEBP", method=0, **settings)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
