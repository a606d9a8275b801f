import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from sre.resnet import STAGES
from sre.studies import bundle
from sre.studies.bundle import LIMIT_BYTES, encode, pack_orbit, picture_sheet
from sre.studies.orbit import ANGLES_DEG, ModelView, OrbitView, StageView, study_orbit
from tests.networks import CARD

KINDS = ("mean", "features", "cam")
CARDS = (
    CARD,
    replace(CARD, model="resnet18"),
    replace(CARD, model="resnet18", rotates_in_training=True),
)


def decode(sheet: dict) -> np.ndarray:
    """Cut a sheet into its tiles, as a browser does: uint8 (count, side, side[, 3])."""
    head, body = sheet["src"].split(",", 1)
    assert head in ("data:image/avif;base64", "data:image/webp;base64")
    with Image.open(io.BytesIO(base64.b64decode(body, validate=True))) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    columns, tile, side = sheet["columns"], sheet["tile"], sheet["side"]
    assert side <= tile
    assert pixels.shape[1] == columns * tile
    assert pixels.shape[0] == -(-sheet["count"] // columns) * tile
    tiles = []
    for t in range(sheet["count"]):
        y, x = (t // columns) * tile, (t % columns) * tile
        tiles.append(pixels[y : y + side, x : x + side])
    return np.stack(tiles)


def values(sheet: dict) -> np.ndarray:
    """Decode a sheet of measured values."""
    grey = decode(sheet)[..., 0].astype(float)
    return sheet["low"] + (sheet["high"] - sheet["low"]) * grey / 255


def made_up(
    side: int = 28, *, channels: int = 8, smooth: bool = False, colours: int = 1, models: int = 3
) -> OrbitView:
    """Make an orbit of white noise, the worst there is for a codec, or of gentle hills."""
    rng = np.random.default_rng(0)

    def maps(*shape: int) -> np.ndarray:
        if not smooth:
            return rng.random(shape, np.float32)
        y, x = np.mgrid[0 : shape[-2], 0 : shape[-1]] * (2 * np.pi / shape[-1])
        phase = rng.random((*shape[:-2], 1, 1)) * 2 * np.pi
        return (0.5 + 0.25 * (np.sin(y + phase) + np.cos(x - phase))).astype(np.float32)

    def network(card: object) -> ModelView:
        stages, h = [], side
        for i, name in enumerate(STAGES):
            h = -(-h // 2) if i > 1 else h
            stages.append(
                StageView(
                    name,
                    tuple(range(channels)),
                    maps(1 + channels, 72, h, h),
                    maps(72, h, h) * 0.01,
                    rng.random(72),
                )
            )
        found = rng.dirichlet(np.ones(10), 72).astype(np.float32)
        return ModelView(card, 3, found, found.argmax(1), tuple(stages))

    seen = rng.integers(0, 256, (72, side, side, colours), np.uint8)
    return OrbitView(
        np.array(ANGLES_DEG),
        "disc",
        3,
        side,
        seen,
        rng.random(72),
        tuple(map(network, CARDS))[:models],
    )


def packed(view: OrbitView) -> dict:
    text = pack_orbit(view, key="k", dataset={"name": "digits"}, sample={"index": 7})
    assert len(text.encode()) <= LIMIT_BYTES

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def studied(networks) -> OrbitView:
    """A real study of two tiny networks."""
    image = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    return study_orbit(image, checkpoints=[networks["sre"], networks["plain"]], label=3)


@pytest.fixture(scope="module")
def gentle() -> tuple[OrbitView, dict]:
    """An orbit of gentle maps, and its bundle."""
    view = made_up(smooth=True)
    return view, packed(view)


# What it holds


def test_a_bundle_says_what_the_view_says(studied):
    found = packed(studied)
    assert (found["key"], found["dataset"], found["sample"]) == (
        "k",
        {"name": "digits"},
        {"index": 7},
    )
    assert found["protocol"]["name"] == "disc"
    assert set(found["protocol"]) == {"name", "title", "description"}
    assert found["angles_deg"] == list(range(0, 360, 5))
    assert found["side"] == 28
    assert found["headline"] == studied.headline
    assert found["stages"] == list(STAGES)
    assert_allclose(found["interpolation_error"], studied.interpolation_error, rtol=0.01)
    same = studied.models[0].target == studied.models[1].target
    assert found["target"] == {"class": studied.models[0].target, "same": same}
    for got, model in zip(found["models"], studied.models, strict=True):
        card = model.card
        assert (got["name"], got["arm"]) == (card.model, card.arm)
        assert got["parameters"] == card.parameters > 0
        assert got["multiply_adds"] == card.multiply_adds
        assert got["side_px"] == card.side_px == 28
        assert got["test"] == card.test
        assert got["predictions"] == model.predictions.tolist()
        assert_allclose(got["probabilities"], model.probabilities, atol=5e-5)
        assert (got["changes"], got["target"]) == (model.changes, model.target)
        assert got["consistency"] == pytest.approx(model.consistency, abs=5e-5)
        confidence = model.probabilities[:, model.target]
        assert got["worst_angle_deg"] == 5 * confidence.argmin()
        assert got["worst_confidence"] == pytest.approx(confidence.min(), abs=5e-5)
        for stage, shown in zip(got["stages"], model.stages, strict=True):
            assert (stage["name"], stage["side"]) == (shown.name, shown.cam.shape[-1])
            assert stage["channels"] == ["mean", *shown.channels]
            assert_allclose(stage["equivariance_error"], shown.equivariance_error, rtol=0.01)
            assert stage["mean"]["count"] == stage["cam"]["count"] == 72
            assert stage["features"]["count"] == 72 * len(shown.channels)


def test_titles_are_those_of_the_arms(gentle):
    titles = [(m["title"], m["short"]) for m in gentle[1]["models"]]
    assert titles == [("SRE-CNN", "SRE"), ("CNN", "CNN"), ("CNN + rotation", "CNN + rot.")]


def test_many_labels_at_once_are_predicted_each():
    view = made_up(smooth=True, models=1)
    (model,) = view.models
    several = replace(model, predictions=(model.probabilities > 0.1).astype(int))
    found = packed(replace(view, models=(several,), label=(0, 1)))
    assert found["models"][0]["predictions"] == several.predictions.tolist()


def test_numbers_that_json_lacks_are_never_written():
    view = made_up(models=1)
    view.models[0].probabilities[0, 0] = np.nan
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack_orbit(view, key="k", dataset={}, sample={})


# Its pictures


@pytest.mark.parametrize("kind", KINDS)
def test_gentle_maps_come_back(gentle, kind):
    view, found = gentle
    for model, shown in zip(found["models"], view.models, strict=True):
        for stage, maps in zip(model["stages"], shown.stages, strict=True):
            wanted = {
                "mean": maps.features[0],
                "features": maps.features[1:].reshape(-1, *maps.features.shape[-2:]),
                "cam": maps.cam,
            }[kind]
            sheet = stage[kind]
            if sheet["side"] != wanted.shape[-1]:
                small = F.adaptive_avg_pool2d(torch.from_numpy(wanted), sheet["side"])
                wanted = small.numpy()
            off = np.abs(values(sheet) - wanted.clip(sheet["low"], sheet["high"]))
            assert off.mean() < 0.02 * sheet["high"]
            assert off.max() < 0.25 * sheet["high"]


def test_the_smallest_maps_are_exact(studied):
    for model, shown in zip(packed(studied)["models"], studied.models, strict=True):
        for kind, wanted in (
            ("mean", shown.stages[4].features[0]),
            ("features", shown.stages[4].features[1:].reshape(-1, 4, 4)),
            ("cam", shown.stages[4].cam),
        ):
            sheet = model["stages"][4][kind]
            assert sheet["side"] == 4
            step = (sheet["high"] - sheet["low"]) / 255
            clipped = wanted.clip(sheet["low"], sheet["high"])
            assert np.abs(values(sheet) - clipped).max() <= 0.51 * step


def test_each_map_is_at_its_place():
    """Tile 72 * channel + angle: a map of its own grey for each."""
    view = made_up(models=1)
    (model,) = view.models
    grey = np.arange(8)[:, None] * 20 + np.arange(72)[None] * 0.2
    stages = []
    for stage in model.stages:
        features = np.zeros_like(stage.features)
        features[1:] = grey[..., None, None]
        features[0] = grey[3, :, None, None]
        cam = np.broadcast_to(grey[7, :, None, None], stage.cam.shape).astype(np.float32)
        stages.append(replace(stage, features=features, cam=cam))
    found = packed(replace(view, models=(replace(model, stages=tuple(stages)),)))
    for stage in found["models"][0]["stages"]:
        middle = stage["features"]["side"] // 2
        assert_allclose(values(stage["features"])[:, middle, middle].reshape(8, 72), grey, atol=2.5)
        middle = stage["cam"]["side"] // 2
        assert_allclose(values(stage["mean"])[:, middle, middle], grey[3], atol=2.5)
        assert_allclose(values(stage["cam"])[:, middle, middle], grey[7], atol=2.5)


def test_the_input_is_what_the_networks_see(studied):
    shown = decode(packed(studied)["input"])
    assert shown.shape == (72, 28, 28, 3)
    assert np.abs(shown.astype(int) - studied.seen).mean() < 6  # white noise


@pytest.mark.parametrize("colours", [1, 3])
def test_turned_frames_look_turned(colours):
    view = made_up(smooth=True, models=1)
    y, x = np.mgrid[0:28, 0:28]
    frame = np.stack([x * 9, y * 9, 255 - x * 9], -1)[..., :colours].astype(np.uint8)
    seen = np.stack([np.rot90(frame, place // 18) for place in range(72)])
    shown = decode(packed(replace(view, seen=seen))["input"])
    assert np.abs(shown[..., :colours].astype(int) - seen).mean() < 4
    if colours == 1:
        assert_array_equal(shown[..., 0], shown[..., 2])


def test_reduced_maps_turn_as_the_maps_do():
    maps = np.random.default_rng(0).random((1, 4, 28, 28), np.float32)
    small = bundle._reduced(maps, 16)
    assert small.shape == (1, 4, 14, 14)
    assert_allclose(small[0, 0, 0, 0], maps[0, 0, :2, :2].mean(), rtol=1e-6)
    turned = bundle._reduced(np.rot90(maps, 1, (-2, -1)).copy(), 16)
    assert_allclose(turned, np.rot90(small, 1, (-2, -1)), atol=1e-6)
    assert bundle._reduced(maps, 28) is maps


def test_large_images_are_shown_smaller():
    found = packed(made_up(80, smooth=True, models=1))
    assert found["side"] == found["input"]["side"] == 40
    assert found["models"][0]["stages"][0]["side"] == 80


# Its scales


def test_scales_are_shared_by_the_networks_and_cover_their_values(studied):
    found = packed(studied)
    for kind in KINDS:
        assert list(found["scales"][kind]) == list(STAGES)
        for i, name in enumerate(STAGES):
            scale = found["scales"][kind][name]
            for model in found["models"]:
                sheet = model["stages"][i][kind]
                assert [sheet["low"], sheet["high"]] == scale
            low, high = scale
            assert low == 0
            for model in studied.models:
                stage = model.stages[i]
                shown = {
                    "mean": stage.features[:1],
                    "features": stage.features[1:],
                    "cam": stage.cam,
                }
                assert (shown[kind] >= 0).all()
                assert (shown[kind] <= high * 1.001).mean() > 0.99


def test_a_few_peaks_do_not_leave_the_rest_in_the_dark():
    view = made_up(smooth=True, models=1)
    view.models[0].stages[0].features[1, 0, 5, 6] = 1e6
    assert packed(view)["scales"]["features"]["stem"][1] < 2


def test_dead_stages_have_a_scale_all_the_same():
    view = made_up(models=1)
    for stage in view.models[0].stages:
        stage.features[:], stage.cam[:] = 0, 0
    found = packed(view)
    for kind in KINDS:
        assert all(low == 0 < high for low, high in found["scales"][kind].values())
        assert not values(found["models"][0]["stages"][2][kind]).any()


# Its size


@pytest.mark.parametrize(("side", "colours"), [(28, 3), (32, 3)])
def test_white_noise_fits(side, colours):
    assert len(packed(made_up(side, colours=colours))["models"]) == 3


def test_a_large_noisy_picture_fits():
    assert packed(made_up(64, colours=3, models=1))["side"] == 64


def test_pictures_lose_no_more_than_they_must(gentle, monkeypatch):
    view, sizes = gentle[0], []
    for limit in (400_000, 160_000):
        monkeypatch.setattr(bundle, "LIMIT_BYTES", limit)
        sizes.append(len(pack_orbit(view, key="k", dataset={}, sample={})))
        assert sizes[-1] <= limit
    assert sizes[0] > sizes[1]


def test_what_cannot_fit_is_a_slip_in_code(monkeypatch):
    monkeypatch.setattr(bundle, "LIMIT_BYTES", 10_000)
    message = r"^the bundle takes \d+ bytes at the lowest quality, over 10000$"
    with pytest.raises(ValueError, match=message):
        pack_orbit(made_up(models=1), key="k", dataset={}, sample={})


# Sheets of pictures


@pytest.mark.parametrize("count", [1, 2, 60, 200])
@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "colour"])
def test_galleries(count, colours):
    y, x = np.mgrid[0:28, 0:28]
    ramp = (x + y) * 4
    images = np.stack([ramp + 30 * (i % 2) for i in range(count)]).astype(np.uint8)
    images = np.repeat(images[..., None], 3, -1) if colours else images
    sheet = picture_sheet(images)
    assert (sheet["count"], sheet["side"], sheet["tile"]) == (count, 28, 28)
    assert set(sheet) == {"src", "tile", "side", "columns", "count"}
    shown = decode(sheet)
    wanted = images if colours else images[..., None]
    assert np.abs(shown.astype(int) - wanted).mean() < 3


def test_read_only_pictures_are_taken():
    images = np.zeros((2, 28, 28), np.uint8)
    images.flags.writeable = False  # as those of a split are
    assert picture_sheet(images)["count"] == 2


def test_without_loss_every_grey_comes_back():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    body = encode(picture, None).removeprefix("data:image/webp;base64,")
    with Image.open(io.BytesIO(base64.b64decode(body))) as shown:
        assert_array_equal(np.asarray(shown.convert("L")), picture)
