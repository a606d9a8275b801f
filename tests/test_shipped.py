"""The checkpoints of the repository: all there, comparable, small, and as good as they say."""

import hashlib
import json
from pathlib import Path

import pytest

from sre.checkpoints import list_checkpoints, load_checkpoint
from sre.data.store import load_split
from sre.evaluation import classify, decide
from sre.protocols import find_protocol

FOLDER = Path(__file__).resolve().parent.parent / "checkpoints"
INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
# Those of the repository: who trains networks of their own may keep them in the same folder.
SHIPPED = {FOLDER / row["file"] for row in INDEX}
CARDS = {path: card for path, card in list_checkpoints(FOLDER).items() if path in SHIPPED}
DATASETS = ("cells", "digits", "breastmnist", "retinamnist", "pneumoniamnist", "bloodmnist")
ARMS = ("sre", "plain", "augmented")
BY_ARM = {(card.dataset, card.arm): card for card in CARDS.values() if card.side_px == 28}
LIMIT_BYTES = 24_000_000
# Settings that may differ between the three networks of a data set: the point of the comparison.
ARM_SETTINGS = {"rotate"}


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("arm", ARMS)
def test_every_network_is_there(dataset, arm):
    card = BY_ARM[dataset, arm]
    assert card.width == 16
    assert card.test["images"] == card.split_sizes["test"]
    assert card.test["angles"] == 36
    assert card.command.startswith(f"python -m sre train {dataset} ")
    assert card.validation
    assert card.versions["torch"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_three_are_trained_alike(dataset):
    cards = [BY_ARM[dataset, arm] for arm in ARMS]
    alike = [
        {name: value for name, value in card.config.items() if name not in ARM_SETTINGS}
        for card in cards
    ]
    assert alike[0] == alike[1] == alike[2]
    assert len({(card.seed, card.epochs, card.dataset_md5) for card in cards}) == 1
    assert cards[1].parameters == cards[2].parameters > cards[0].parameters


def test_they_take_little_room():
    assert sum(path.stat().st_size for path in SHIPPED) <= LIMIT_BYTES


def test_the_index_has_the_sha256_of_every_file():
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in SHIPPED}
    assert {row["file"]: row["sha256"] for row in INDEX} == found
    assert set(CARDS) == SHIPPED


def test_the_ordinary_network_has_learned_its_cells():
    assert BY_ARM["bloodmnist", "plain"].test["accuracy_at_0"] >= 0.9


@pytest.mark.parametrize(
    "path", [p for p, c in CARDS.items() if c.dataset == "digits"], ids=lambda p: p.name
)
def test_the_figures_of_built_in_data_come_out_again(path):
    assert accuracy_at_0(path, Path()) == pytest.approx(
        CARDS[path].test["accuracy_at_0"], abs=0.006
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [p for p, c in CARDS.items() if c.dataset != "digits"], ids=lambda p: p.name
)
def test_the_figures_come_out_again(path, data_dir):
    assert accuracy_at_0(path, data_dir) == pytest.approx(
        CARDS[path].test["accuracy_at_0"], abs=0.006
    )


def accuracy_at_0(path: Path, data_dir: Path) -> float:
    model, card = load_checkpoint(path)
    split = load_split(card.dataset, "test", data_dir=data_dir)
    found = classify(
        model,
        split.images,
        find_protocol(card.protocol),
        side_px=card.side_px,
        angle_deg=0.0,
        is_multi_label=card.is_multi_label,
    )
    predictions = decide(found, is_multi_label=card.is_multi_label)
    return float((predictions == split.labels).mean())
