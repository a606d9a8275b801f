"""What networks are called, and what tells those of one name apart."""

from dataclasses import replace

import pytest

from sre.checkpoints import CheckpointCard
from sre.models import CLASSIFIERS
from sre.studies.naming import IN_SENTENCES, TITLES, kind_of, list_titles, tell_apart, title_of
from tests.networks import CARD

PLAIN = replace(CARD, model="resnet18")


def told(*cards: CheckpointCard) -> list[str]:
    return tell_apart(cards, ["SRE"] * len(cards))


def config(**changes: object) -> CheckpointCard:
    return replace(CARD, config={**CARD.config, **changes})


def test_one_of_its_name_has_nothing_added():
    assert told(CARD) == ["SRE"]
    assert tell_apart([CARD, PLAIN], ["SRE", "the CNN"]) == ["SRE", "the CNN"]


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (replace(CARD, model="sre_resnet34"), ["SRE 18", "SRE 34"]),
        (replace(CARD, width=9), ["SRE of width 4", "SRE of width 9"]),
        (replace(CARD, side_px=42), ["SRE at 28 px", "SRE at 42 px"]),
        (replace(CARD, seed=2), ["SRE of seed 0", "SRE of seed 2"]),
        (replace(CARD, epochs=1), [f"SRE after {CARD.epochs} epochs", "SRE after 1 epoch"]),
        (
            replace(CARD, blur_pools=True),
            ["SRE with ordinary pools", "SRE with anti-aliased pools"],
        ),
        (CARD, ["SRE (number 1)", "SRE (number 2)"]),
    ],
)
def test_alike_networks_are_told_apart_by_what_they_differ_in(other, names):
    assert told(CARD, other) == names


def test_no_more_is_said_than_it_takes():
    wide, seeded = replace(CARD, width=9), replace(CARD, width=9, seed=2)
    assert told(CARD, wide, seeded) == [
        "SRE of width 4 of seed 0", "SRE of width 9 of seed 0", "SRE of width 9 of seed 2",
    ]  # fmt: skip
    assert told(wide, replace(seeded, width=8)) == ["SRE of width 9", "SRE of width 8"]


def test_settings_of_the_training_count_too():
    assert told(config(learning_rate=0.004), config(learning_rate=0.002)) == [
        "SRE at a learning rate of 0.004", "SRE at a learning rate of 0.002",
    ]  # fmt: skip
    assert told(config(balance=True), config(balance=False)) == [
        "SRE with bands at one pace", "SRE with bands as usual",
    ]  # fmt: skip


def test_ordinary_networks_have_no_kernels_to_differ_in():
    names = tell_apart([PLAIN, replace(PLAIN, kernel_sizes=(5, 5, 3, 3))], ["CNN", "CNN"])
    assert names == ["CNN (number 1)", "CNN (number 2)"]
    assert told(CARD, replace(CARD, kernel_sizes=(5, 5, 3, 3)))[1] == "SRE with kernels 5, 5, 3, 3"


def test_lists_put_where_a_network_is_from_last():
    again = replace(CARD, seed=2)
    assert list_titles([CARD, again, CARD], ["", "", ", trained here"]) == [
        "SRE-CNN, width 4, of seed 0",
        "SRE-CNN, width 4, of seed 2",
        "SRE-CNN, width 4, trained here",
    ]
    assert title_of(replace(CARD, side_px=42)) == "SRE-CNN, width 4, at 42 px"


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_every_classifier_has_a_name(model):
    card = replace(CARD, model=model, rotates_in_training=True)
    assert card.arm in TITLES
    assert set(IN_SENTENCES) == set(TITLES)
    assert kind_of(model, card.arm).endswith("CNN + rotation") == model.endswith("18")
