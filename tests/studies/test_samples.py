from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sre.checkpoints import save_checkpoint
from sre.data.store import load_split
from sre.data.table import find_dataset
from sre.errors import CheckpointError, DataError, SettingError, UnknownNameError
from sre.evaluation import FEW_ANGLES_DEG, classify
from sre.protocols import PROTOCOLS, prepare, present
from sre.studies.orbit import load_fresh
from sre.studies.samples import KINDS, find_images, find_sample, list_gallery, load_test
from tests.data.files import breast
from tests.networks import CARD, tiny_network

NOWHERE = Path("nowhere")
DISC = PROTOCOLS["disc"]


def look(kind: str, checkpoints: list[Path], **changes: object) -> tuple[int, str]:
    given = {"after": None, "protocol": "disc", "data_dir": NOWHERE, "dataset": "digits"} | changes
    view = find_sample(given.pop("dataset"), kind, checkpoints=checkpoints, **given)
    return view.index, view.note


@pytest.fixture(scope="module")
def wavering(tmp_path_factory) -> dict[str, Path]:
    """Untrained networks that call the digits now this, now that, by arm."""
    images = load_split("digits", "test", data_dir=NOWHERE).images[:64]
    x = present(prepare(images, DISC, side_px=28), DISC, angle_deg=0.0)
    made = {}
    for arm, name in (("sre", "sre_resnet18"), ("plain", "resnet18")):
        model = tiny_network(replace(CARD, model=name))
        with torch.no_grad():
            pooled = model.forward_features(x)["stage4"].mean((-2, -1))
            model.head.weight /= pooled.std(0).mean()
            model.head.bias.copy_(-model.head.weight @ pooled.mean(0))
        made[arm] = tmp_path_factory.mktemp("wavering") / f"{arm}.safetensors"
        save_checkpoint(model, replace(CARD, model=name), made[arm])
    return made


@pytest.fixture(scope="module")
def wrong(wavering) -> dict[str, np.ndarray]:
    """Where each network is wrong on the first digits: (angles, images), by arm."""
    split, found = load_split("digits", "test", data_dir=NOWHERE), {}
    for arm in ("sre", "plain"):
        model, _ = load_fresh(wavering[arm])
        at = [
            classify(
                model,
                split.images[:64],
                DISC,
                side_px=28,
                angle_deg=angle,
                is_multi_label=False,
            ).argmax(1)
            != split.labels[:64]
            for angle in FEW_ANGLES_DEG
        ]
        found[arm] = np.stack(at)
    return found


@pytest.fixture
def stubborn(tmp_path) -> list[Path]:
    """Networks that call every BreastMNIST image class 1."""
    classes = find_dataset("breastmnist").classes
    made = []
    for name in ("sre_resnet18", "resnet18"):
        card = replace(CARD, dataset="breastmnist", classes=classes, model=name)
        model = tiny_network(card)
        model.head.weight.data.zero_()
        model.head.bias.data = torch.tensor([0.0, 1.0])
        made.append(tmp_path / card.file_name)
        save_checkpoint(model, card, made[-1])
    return made


# The gallery


def test_a_gallery_of_all_classes_is_in_order():
    split = load_split("digits", "test", data_dir=NOWHERE)
    view = list_gallery("digits", label=None, offset=30, limit=20, data_dir=NOWHERE)
    assert view.total == 400
    assert view.indices.tolist() == list(range(30, 50))
    assert (view.labels == split.labels[30:50]).all()
    assert (view.images == split.images[30:50]).all()


def test_a_gallery_of_one_class_can_be_paged():
    split = load_split("digits", "test", data_dir=NOWHERE)
    members = np.flatnonzero(split.labels == 7)
    seen = []
    for offset in range(0, 60, 15):
        view = list_gallery("digits", label=7, offset=offset, limit=15, data_dir=NOWHERE)
        assert view.total == len(members)
        assert set(view.labels.tolist()) <= {7}
        seen += view.indices.tolist()
    assert seen == members.tolist()


def test_a_gallery_of_many_labels_has_those_with_the_label(tmp_path):
    images = np.zeros((6, 28, 28), np.uint8)
    labels = np.zeros((6, 14), np.uint8)
    labels[[1, 4], 3] = 1
    names = ("train", "val", "test")
    arrays = {f"{n}_{k}": v for n in names for k, v in (("images", images), ("labels", labels))}
    np.savez(tmp_path / "chestmnist.npz", **arrays)
    view = list_gallery("chestmnist", label=3, offset=0, limit=10, data_dir=tmp_path)
    assert view.indices.tolist() == [1, 4]
    assert view.labels.shape == (2, 14)
    none = list_gallery("chestmnist", label=0, offset=0, limit=10, data_dir=tmp_path)
    assert (none.total, len(none.images)) == (0, 0)


def test_past_the_end_there_is_nothing():
    view = list_gallery("digits", label=None, offset=10**15, limit=200, data_dir=NOWHERE)
    assert (view.total, len(view.indices)) == (400, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 10}, "^the class must be from 0 to 9, got 10$"),
        ({"label": -1}, "^the class must be from 0 to 9, got -1$"),
        ({"offset": -1}, "^offset must be at least 0 and limit from 1 to 200, got -1, 10$"),
        ({"limit": 0}, "limit from 1 to 200, got 0, 0$"),
        ({"limit": 201}, "limit from 1 to 200, got 0, 201$"),
    ],
    ids=str,
)
def test_galleries_out_of_range(change, message):
    given = {"label": None, "offset": 0, "limit": 10} | change
    with pytest.raises(SettingError, match=message):
        list_gallery("digits", data_dir=NOWHERE, **given)


def test_sets_that_cannot_be_turned(tmp_path):
    message = (
        r"^NoduleMNIST3D holds volumes, which the Lab does not turn yet; choose a 2-D data set$"
    )
    with pytest.raises(SettingError, match=message):
        find_images("nodulemnist3d")
    with pytest.raises(SettingError, match=message):
        load_test("nodulemnist3d", data_dir=tmp_path)
    with pytest.raises(UnknownNameError, match=r"^unknown data set 'digit'; did you mean 'digits'"):
        load_test("digit", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"bloodmnist\.npz is not there; download BloodMNIST"):
        load_test("bloodmnist", data_dir=tmp_path)


# Samples of a kind


def test_kinds_and_what_is_none(networks):
    assert KINDS == ("random", "cnn_wrong_turned", "sre_wrong")
    message = r"^unknown kind 'wrong'; choose from random, cnn_wrong_turned, sre_wrong$"
    with pytest.raises(SettingError, match=message):
        look("wrong", list(networks.values()))


def test_random_samples_need_no_network():
    found = {look("random", [])[0] for _ in range(50)}
    assert len(found) > 20
    assert found <= set(range(400))


@pytest.mark.parametrize("after", [None, 0, 5])
def test_sre_wrong_is_the_next_that_it_gets_wrong(wavering, wrong, after):
    first = 0 if after is None else after + 1
    expected = first + int(wrong["sre"][0][first:].argmax())
    index, note = look("sre_wrong", list(wavering.values()), after=after)
    assert index == expected
    assert note == "SRE is wrong here, upright already."


@pytest.mark.parametrize("after", [None, 0, 5])
def test_cnn_wrong_turned_is_right_upright_and_wrong_at_another_angle(wavering, wrong, after):
    first = 0 if after is None else after + 1
    kind = ~wrong["plain"][0] & wrong["plain"][1:].any(0)
    assert kind[first:].any(), "this test needs a network that wavers among the first digits"
    expected = first + int(kind[first:].argmax())
    angles = np.flatnonzero(wrong["plain"][:, expected])
    index, note = look("cnn_wrong_turned", list(wavering.values()), after=after)
    assert index == expected
    assert note == (
        f"The CNN is right upright, and wrong at {len(angles)} of 11 other angles, first at "
        f"{30 * angles[0]}°."
    )


@pytest.mark.parametrize("after", [399, 400, -1, 10**15, -(10**15)])
def test_the_search_goes_round(wavering, wrong, after):
    index, _ = look("sre_wrong", list(wavering.values()), after=after)
    assert 0 <= index < 400
    if after in (399, -1):
        assert index == int(wrong["sre"][0].argmax())


def test_searching_on_finds_another_each_time(wavering):
    found, after = [], None
    for _ in range(5):
        after, _ = look("sre_wrong", list(wavering.values()), after=after)
        found.append(after)
    assert found == sorted(set(found))


def test_a_set_of_one_image_comes_back_to_it(stubborn, tmp_path):
    np.savez(tmp_path / "breastmnist.npz", **breast(test=1))  # of class 0
    where = {"dataset": "breastmnist", "data_dir": tmp_path}
    assert [look("sre_wrong", stubborn, after=a, **where)[0] for a in (None, 0, 7)] == [0, 0, 0]


def test_none_of_the_kind_is_said(stubborn, tmp_path):
    arrays = breast()
    arrays["test_labels"][:] = 1
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    where = {"dataset": "breastmnist", "data_dir": tmp_path}
    for kind, what in (
        ("sre_wrong", "SRE gets wrong"),
        ("cnn_wrong_turned", "the CNN gets wrong when turned"),
    ):
        message = f"^none that {what} among the 4 images looked at; try another set$"
        with pytest.raises(SettingError, match=message):
            look(kind, stubborn, **where)


def test_without_the_network_it_cannot_be_said(networks):
    with pytest.raises(CheckpointError, match=r"^digits has no plain checkpoint; train one$"):
        look("cnn_wrong_turned", [networks["sre"], networks["augmented"]])
    with pytest.raises(CheckpointError, match=r"^digits has no sre checkpoint; train one$"):
        look("sre_wrong", [])


def test_unknown_protocols(networks):
    with pytest.raises(UnknownNameError, match=r"^unknown protocol 'x'; choose from disc, paper$"):
        look("sre_wrong", list(networks.values()), protocol="x")
