import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sre.checkpoints import load_checkpoint, save_checkpoint
from sre.errors import CheckpointError, Dropped, SettingError, UnknownNameError
from sre.explanation import explain
from sre.protocols import PROTOCOLS, find_protocol, prepare, present
from sre.resnet import STAGES
from sre.studies import orbit
from sre.studies.naming import IN_SENTENCES
from sre.studies.orbit import (
    ANGLES_DEG,
    ModelView,
    OrbitView,
    join,
    load_fresh,
    study_orbit,
    times,
)
from sre.symmetry import disc_mask
from tests.networks import CARD, tiny_network, write_checkpoint

QUARTERS = (18, 36, 54)  # places of 90, 180 and 270 degrees
BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)


def noise(side: int = 28, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


@pytest.fixture(scope="module")
def views(networks) -> dict[str, OrbitView]:
    """One image's orbit under both protocols: SRE and the plain network."""
    checkpoints = [networks["sre"], networks["plain"]]
    return {p: study_orbit(noise(), checkpoints=checkpoints, protocol=p) for p in PROTOCOLS}


def test_angles_go_round_in_steps_of_five_degrees():
    assert list(ANGLES_DEG) == list(range(0, 360, 5))


@pytest.mark.parametrize(("protocol", "side"), [("disc", 28), ("paper", 32)])
def test_shapes(views, protocol, side):
    view = views[protocol]
    assert view.angles_deg.tolist() == list(ANGLES_DEG)
    assert (view.protocol, view.label, view.side_px) == (protocol, None, side)
    assert view.seen.shape == (72, side, side, 1)
    assert view.seen.dtype == np.uint8
    assert view.interpolation_error.shape == (72,)
    assert [m.card.arm for m in view.models] == ["sre", "plain"]
    for model in view.models:
        assert model.probabilities.shape == (72, 10)
        assert_allclose(model.probabilities.sum(1), 1, rtol=1e-5)
        assert model.predictions.shape == (72,)
        assert tuple(stage.name for stage in model.stages) == STAGES
        sides = [side, side, side // 2, side // 4, side // 8 + (side == 28)]
        for stage, h, channels in zip(model.stages, sides, (4, 4, 8, 8, 8), strict=True):
            assert len(stage.channels) == len(set(stage.channels)) == channels
            assert stage.features.shape == (1 + channels, 72, h, h)
            assert stage.cam.shape == (72, h, h)
            assert stage.equivariance_error.shape == (72,)


@BOTH
def test_each_frame_is_the_networks_answer_to_the_image_turned(views, networks, protocol):
    view = views[protocol]
    chosen = find_protocol(protocol)
    for path, found in zip((networks["sre"], networks["plain"]), view.models, strict=True):
        model, _ = load_checkpoint(path)
        for place in (0, 7, 18):
            pixels = prepare(noise()[None], chosen, side_px=28)
            x = present(pixels, chosen, angle_deg=ANGLES_DEG[place])
            alone = explain(model, x, targets=found.target)
            assert_allclose(found.probabilities[place], alone.logits[0].softmax(0), atol=1e-5)
            for stage in found.stages:
                maps = alone.features[stage.name][0].numpy()
                shown = [maps.mean(0), *maps[list(stage.channels)]]
                scale = np.abs(maps).max()
                assert_allclose(stage.features[:, place], shown, atol=1e-5 * scale)
                cam = alone.cams[stage.name][0].numpy()
                assert_allclose(stage.cam[place], cam, atol=1e-4 * max(cam.max(), 1e-3))


def test_the_channels_shown_are_the_strongest_and_come_in_order(views):
    for model in views["disc"].models:
        for stage in model.stages:
            strength = stage.features[1:].mean((1, 2, 3))  # features are at least 0
            assert (np.diff(strength) <= 1e-6).all()


# Quarter turns


def quarter_difference(view: OrbitView, arm: str) -> dict[str, float]:
    """How far a network is from symmetry under quarter turns, relative to its values."""
    (model,) = [m for m in view.models if m.card.arm == arm]
    found = {"probabilities": 0.0, "features": 0.0, "cam": 0.0, "error": 0.0}
    for turns, place in enumerate(QUARTERS, 1):
        p = model.probabilities
        found["probabilities"] = max(found["probabilities"], np.abs(p[place] - p[0]).max())
        for stage in model.stages:
            for kind in ("features", "cam"):
                maps = getattr(stage, kind)
                turned = np.rot90(maps[..., 0, :, :], turns, (-2, -1))
                off = np.abs(maps[..., place, :, :] - turned).max() / max(maps.max(), 1e-3)
                found[kind] = max(found[kind], off)
            found["error"] = max(found["error"], stage.equivariance_error[place])
    return found


def test_how_the_orbit_is_cut_up_makes_no_difference(views, networks, monkeypatch):
    monkeypatch.setattr(orbit, "PASS_ANGLES", 50)  # two passes, of 50 and 22 angles
    other = study_orbit(noise(), checkpoints=[networks["sre"], networks["plain"]])
    for model, expected in zip(other.models, views["disc"].models, strict=True):
        for stage, known in zip(model.stages, expected.stages, strict=True):
            assert stage.channels == known.channels
            for field in ("features", "cam", "equivariance_error"):
                found = getattr(stage, field)
                assert_allclose(found, getattr(known, field), rtol=1e-4, atol=1e-6)


@BOTH
def test_sre_is_exact_at_quarter_turns(views, protocol):
    found = quarter_difference(views[protocol], "sre")
    assert max(found["probabilities"], found["features"], found["error"]) < 1e-5
    assert found["cam"] < 1e-4


@BOTH
def test_the_plain_network_is_not(views, protocol):
    assert min(quarter_difference(views[protocol], "plain").values()) > 1e-3


@BOTH
def test_what_the_networks_see_is_exact_at_quarter_turns(views, protocol):
    seen = views[protocol].seen
    for turns, place in enumerate(QUARTERS, 1):
        assert_array_equal(seen[place], np.rot90(seen[0], turns))


def test_disc_masks_and_paper_fills_with_mid_grey(views):
    outside = ~disc_mask(28, 28).numpy()
    assert set(views["disc"].seen[:, outside].flatten()) == {128}
    assert views["paper"].seen[9, 0, 0] == 128  # 45 degrees
    assert views["paper"].seen[0, 0].std() > 30  # upright, paper shows the corners


@BOTH
def test_interpolation_is_nothing_at_quarter_turns_and_something_between(views, protocol):
    error = views[protocol].interpolation_error
    assert error[[0, *QUARTERS]].tolist() == [0, 0, 0, 0]
    assert np.delete(error, [0, *QUARTERS]).min() > 0.05  # on white noise


def test_upright_is_its_own_measure(views):
    for model in views["disc"].models:
        for stage in model.stages:
            assert stage.equivariance_error[0] == 0


# The class that is explained


@pytest.mark.parametrize("target", [None, 0, 9])
def test_cams_explain_the_target_or_the_upright_prediction(networks, target):
    view = study_orbit(noise(), checkpoints=[networks["plain"]], target=target)
    (model,) = view.models
    upright = int(model.predictions[0])
    assert model.target == (upright if target is None else target)
    network, _ = load_checkpoint(networks["plain"])
    pixels = prepare(noise()[None], PROTOCOLS["disc"], side_px=28)
    x = present(pixels, PROTOCOLS["disc"], angle_deg=0.0)
    wanted = explain(network, x, targets=model.target).cams["stage2"][0]
    assert_allclose(model.stages[2].cam[0], wanted, atol=1e-4 * float(wanted.max()))


def test_targets_make_a_difference(networks):
    cams = [
        study_orbit(noise(), checkpoints=[networks["plain"]], target=t).models[0].stages[4].cam
        for t in (0, 1)
    ]
    assert np.abs(cams[0] - cams[1]).max() > 1e-3


@pytest.mark.parametrize("target", [-1, 10, 10**20])
def test_targets_that_are_no_class(networks, target):
    message = f"^the class to explain must be from 0 to 9, got {target}$"
    with pytest.raises(SettingError, match=message):
        study_orbit(noise(), checkpoints=[networks["sre"]], target=target)


# Other images


def test_images_in_colour(colour_networks):
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    view = study_orbit(image, checkpoints=list(colour_networks.values()))
    assert view.seen.shape == (72, 28, 28, 3)
    assert len(view.models) == 3
    inside = disc_mask(24, 24).numpy()
    assert_array_equal(view.seen[0, 2:26, 2:26][inside], image[2:26, 2:26][inside])


def test_images_of_another_side_are_resized(networks):
    view = study_orbit(noise(64), checkpoints=[networks["sre"]])
    assert view.seen.shape == (72, 28, 28, 1)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_images(networks, level):
    view = study_orbit(np.full((28, 28), level, np.uint8), checkpoints=[networks["sre"]])
    assert np.isfinite(view.interpolation_error).all()
    for stage in view.models[0].stages:
        assert np.isfinite(stage.equivariance_error).all()


def test_many_labels_at_once(tmp_path):
    path = write_checkpoint(
        tmp_path, dataset="chestmnist", classes=("a", "b", "c"), is_multi_label=True
    )
    view = study_orbit(noise(), checkpoints=[path], label=(0, 1, 1))
    (model,) = view.models
    assert model.predictions.shape == (72, 3)
    assert_array_equal(model.predictions, model.probabilities >= 0.5)
    assert model.target == model.probabilities[0].argmax()
    assert np.abs(model.probabilities.sum(1) - 1).max() > 0.01  # a sigmoid a label, no softmax
    assert re.match(r"Over the full turn SRE (never )?changes its mind", view.headline)
    assert "ight" not in view.headline


# What cannot be studied


def test_no_checkpoints():
    with pytest.raises(CheckpointError, match=r"^no checkpoint was given; train one, or choose"):
        study_orbit(noise(), checkpoints=[])


def test_unknown_protocols(networks):
    with pytest.raises(UnknownNameError, match=r"^unknown protocol 'disk'; did you mean 'disc'"):
        study_orbit(noise(), checkpoints=[networks["sre"]], protocol="disk")


def test_checkpoints_of_other_channels(networks, colour_networks):
    name = colour_networks["sre"].name
    message = f"^{name} takes images of 3 channels, this one has 1; choose another data set$"
    with pytest.raises(CheckpointError, match=message):
        study_orbit(noise(), checkpoints=[networks["sre"], colour_networks["sre"]])


def test_checkpoints_of_other_classes(networks, tmp_path):
    other = write_checkpoint(tmp_path, model="resnet18", classes=("a", "b"))
    message = f"^{other.name} has other classes than {networks['sre'].name};"
    with pytest.raises(CheckpointError, match=message):
        study_orbit(noise(), checkpoints=[networks["sre"], other])


@BOTH
def test_each_network_gets_the_image_at_its_own_side(networks, tmp_path, protocol):
    fine = write_checkpoint(tmp_path, model="resnet18", side_px=42)
    view = study_orbit(noise(), checkpoints=[fine, networks["sre"]], protocol=protocol)
    chosen = find_protocol(protocol)
    for path, side, found in zip((fine, networks["sre"]), (42, 28), view.models, strict=True):
        side = chosen.side_px or side
        x = prepare(noise()[None], chosen, side_px=side)
        x = present(x, chosen, angle_deg=ANGLES_DEG[7])
        logits = load_checkpoint(path)[0](x)
        assert_allclose(found.probabilities[7], logits[0].softmax(0), atol=1e-5)
        assert found.stages[0].cam.shape == (72, side, side)
    assert view.side_px == (chosen.side_px or 42)
    assert view.seen.shape[1:3] == (view.side_px, view.side_px)


def test_missing_and_damaged_checkpoints(tmp_path, networks):
    broken = tmp_path / "broken.safetensors"
    with pytest.raises(CheckpointError, match=r"broken.safetensors does not exist"):
        study_orbit(noise(), checkpoints=[networks["sre"], broken])
    broken.write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"^broken.safetensors is damaged or no checkpoint"):
        study_orbit(noise(), checkpoints=[networks["sre"], broken])


@pytest.mark.parametrize("layer", ["stem.0", "stage4.1.conv2", "head"])
def test_networks_that_overflow(tmp_path, layer):
    """Weights may be finite, as loading demands, and what they give not."""
    model = tiny_network()
    for module in [m for name, m in model.named_modules() if name.startswith(layer)]:
        if hasattr(module, "weight"):
            module.weight.data.fill_(60_000)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(1e-38)
    path = tmp_path / "wild.safetensors"
    save_checkpoint(model, CARD, path)
    message = "^wild.safetensors answers this image with numbers that are not finite; train it"
    with pytest.raises(CheckpointError, match=message):
        study_orbit(noise(), checkpoints=[path])


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_a_visitor_who_moves_on_is_not_waited_for(networks, patience):
    asked = []

    def is_wanted() -> bool:
        asked.append(1)
        return len(asked) <= patience

    with pytest.raises(Dropped, match=r"^the visitor has moved on; ask again if you"):
        study_orbit(noise(), checkpoints=list(networks.values()), is_wanted=is_wanted)
    assert len(asked) == patience + 1


# Many at once, and files that change


def test_two_threads_at_once_get_what_one_gets(networks):
    checkpoints = [networks["sre"], networks["plain"]]
    images = [noise(seed=seed) for seed in (1, 2)]
    alone = [study_orbit(image, checkpoints=checkpoints) for image in images]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda i: study_orbit(i, checkpoints=checkpoints), images))
    for one, other in zip(alone, together, strict=True):
        for ours, theirs in zip(one.models, other.models, strict=True):
            assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-6)
            for a, b in zip(ours.stages, theirs.stages, strict=True):
                assert_allclose(a.features, b.features, atol=1e-5 * a.features.max())
                assert_allclose(a.cam, b.cam, atol=1e-4 * max(a.cam.max(), 1e-3))


def test_a_checkpoint_is_loaded_once_and_anew_when_it_changes(tmp_path):
    path = write_checkpoint(tmp_path)
    first, _ = load_fresh(path)
    assert load_fresh(path)[0] is first
    stamp = path.stat().st_mtime_ns
    write_checkpoint(tmp_path, seed=1)
    if path.stat().st_mtime_ns == stamp:
        pytest.skip("this file system's clock is too coarse")
    second, _ = load_fresh(path)
    assert not torch.equal(first.head.weight, second.head.weight)


# Words


def network_view(arm: str, predictions: list[int]) -> ModelView:
    cards = {
        "SRE": CARD,
        "CNN": replace(CARD, model="resnet18"),
        "rotation": replace(CARD, model="resnet18", rotates_in_training=True),
    }
    found = np.array(predictions)
    return ModelView(cards[arm], 0, np.eye(10)[found], found, ())


def headline(label: object, **predictions: list[int]) -> str:
    models = tuple(network_view(arm, found) for arm, found in predictions.items())
    nothing = np.zeros(0)
    return OrbitView(nothing, "disc", label, 28, nothing, nothing, models).headline


RIGHT, ONCE, WRONG = [3] * 72, [3] * 71 + [4], [4] * 72
HALF = [3, 4] * 36


@pytest.mark.parametrize(
    ("label", "predictions", "said"),
    [
        (
            3,
            {"SRE": RIGHT, "CNN": HALF, "rotation": ONCE},
            "Over the full turn SRE never changes its mind, the CNN changes its mind 72 times "
            "and the rotation-trained CNN changes its mind 2 times. Right answers: SRE at 100 %, "
            "the CNN at 50 % and the rotation-trained CNN at 99 % of the angles.",
        ),
        (
            3,
            {"SRE": RIGHT, "CNN": RIGHT},
            "Over the full turn no network changes its mind. "
            "All are right at every angle.",
        ),
        (
            0,
            {"SRE": RIGHT, "CNN": HALF},
            "Over the full turn SRE never changes its mind and the CNN changes its mind 72 "
            "times. None is right at any angle.",
        ),
        (
            3,
            {"SRE": WRONG, "CNN": RIGHT},
            "Over the full turn no network changes its mind. "
            "Right answers: SRE at 0 % and the CNN at 100 % of the angles.",
        ),
        (
            3,
            {"SRE": RIGHT},
            "Over the full turn SRE never changes its mind. Right answers: SRE at 100 % of the "
            "angles.",
        ),
        (3, {"CNN": WRONG}, "Over the full turn the CNN never changes its mind. It is not right "
         "at any angle."),
        (None, {"SRE": [3] * 36 + [4] * 36}, "Over the full turn SRE changes its mind 2 times."),
        ((0, 1), {"CNN": ONCE}, "Over the full turn the CNN changes its mind 2 times."),
    ],
    ids=["n times", "all right", "none right", "SRE wrong", "one", "one wrong", "no label", "many"],
)  # fmt: skip
def test_the_headline_says_what_is_to_be_seen(label, predictions, said):
    assert headline(label, **predictions) == said


def test_changes_are_counted_against_the_upright_answer():
    view = network_view("CNN", [1, 2, 2, 1, 3])
    assert (view.changes, view.consistency) == (3, 0.4)
    multi = np.array([[1, 0], [1, 1], [1, 0], [0, 1]])
    assert replace(view, predictions=multi).changes == 2


def test_switches_are_counted_around_the_circle():
    view = network_view("CNN", [1, 2, 2, 1, 3])
    assert view.switches == 4
    multi = np.array([[1, 0], [1, 1], [1, 0], [1, 0]])
    assert replace(view, predictions=multi).switches == 2


def test_words():
    assert [times(n) for n in (0, 1, 2)] == ["0 times", "1 time", "2 times"]
    assert [join(parts) for parts in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]
    turned = replace(CARD, rotates_in_training=True)
    assert IN_SENTENCES[turned.arm] == "the rotation-trained SRE"


def test_paths_may_be_given_in_any_order(networks):
    paths: list[Path] = [networks["plain"], networks["sre"]]
    view = study_orbit(noise(), checkpoints=paths)
    assert [m.card.arm for m in view.models] == ["plain", "sre"]
