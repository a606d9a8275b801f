"""What networks are called on every page, and what tells those of one name apart."""

import itertools
from collections.abc import Callable, Sequence
from types import MappingProxyType

from sre.checkpoints import CheckpointCard
from sre.models import find_model

SIZE_PX = 28  # of the images, and so of networks of which no side is said
# By arm: as a heading, and where there is little room.
TITLES = MappingProxyType(
    {
        "sre": ("SRE-CNN", "SRE"),
        "plain": ("CNN", "CNN"),
        "augmented": ("CNN + rotation", "CNN + rot."),
        "sre-augmented": ("SRE-CNN + rotation", "SRE + rot."),
        "gmr": ("GMR-CNN", "GMR"),
        "gmr-augmented": ("GMR-CNN + rotation", "GMR + rot."),
    }
)
# The same within a sentence.
IN_SENTENCES = MappingProxyType(
    {
        "sre": "SRE",
        "plain": "the CNN",
        "augmented": "the rotation-trained CNN",
        "sre-augmented": "the rotation-trained SRE",
        "gmr": "GMR",
        "gmr-augmented": "the rotation-trained GMR",
    }
)


def kind_of(model: str, arm: str | None = None) -> str:
    """Name a classifier as the pages do, with its depth where that is not 18.

    Args: arm: by default that of the model, trained without turns

    >>> kind_of("sre_resnet18"), kind_of("resnet34", "augmented")
    ('SRE-CNN', 'CNN 34 + rotation')
    """
    kind, plus, rotation = TITLES[arm or find_model(model).family][0].partition(" +")
    deep = "" if model.endswith("18") else f" {model[-2:]}"
    return f"{kind}{deep}{plus}{rotation}"


def title_of(card: CheckpointCard) -> str:
    """Name a network in a list: its kind, its width, and its side if that is unusual."""
    side = f", at {card.side_px} px" if card.side_px != SIZE_PX else ""
    return f"{kind_of(card.model, card.arm)}, width {card.width}{side}"


def _epochs(card: CheckpointCard) -> str | None:
    return f" after {card.epochs} epoch{'' if card.epochs == 1 else 's'}"


def _kernels(card: CheckpointCard) -> str | None:
    if find_model(card.model).family == "plain":
        return None  # its kernels have a side of 3, whatever was asked
    return f" with kernels {', '.join(map(str, card.kernel_sizes))}"


def _config(form: str, name: str) -> Callable[[CheckpointCard], str | None]:
    def fact(card: CheckpointCard) -> str | None:
        value = card.config.get(name)
        return None if value is None else form.format(f"{value:g}" if _is_number(value) else value)

    return fact


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


# What may tell networks apart, the most telling first; each follows a name in a sentence.
_FACTS: tuple[Callable[[CheckpointCard], str | None], ...] = (
    lambda card: f" {card.model[-2:]}",  # the depth
    lambda card: f" of width {card.width}",
    lambda card: f" at {card.side_px} px",
    _kernels,
    lambda card: f" of seed {card.seed}",
    _epochs,
    lambda card: " with anti-aliased pools" if card.blur_pools else " with ordinary pools",
    lambda card: (
        " with bands at one pace" if card.config.get("balance") else " with bands as usual"
    ),
    _config(" at a learning rate of {}", "learning_rate"),
    _config(" in batches of {}", "batch_size"),
    _config(" with {} of the images masked", "mask_rate"),
    _config(" scaled by up to {}", "scale"),
    _config(" shifted by up to {}", "shift"),
    lambda card: f" by protocol {card.protocol}",
)
_MOST_FACTS = 3


def tell_apart(cards: Sequence[CheckpointCard], names: Sequence[str]) -> list[str]:
    """Add to each name that several networks have as few facts as tell these apart.

    Those that no facts tell apart are counted, from 1.

    Shape: as many cards as names -> as many names, no two of them equal
    """
    told = list(names)
    for name in dict.fromkeys(names):
        places = [i for i, other in enumerate(names) if other == name]
        if len(places) > 1:
            added = _fewest_facts([cards[i] for i in places])
            for i, words in zip(places, added, strict=True):
                told[i] = name + words
    return told


def list_titles(cards: Sequence[CheckpointCard], endings: Sequence[str]) -> list[str]:
    """Name networks for a list, each with an ending of its own; no two are called alike."""
    titles = [title_of(card) for card in cards]
    ended = [title + ending for title, ending in zip(titles, endings, strict=True)]
    added = [
        told.removeprefix(name) for told, name in zip(tell_apart(cards, ended), ended, strict=True)
    ]
    return [
        f"{title},{facts}{ending}" if facts else title + ending
        for title, facts, ending in zip(titles, added, endings, strict=True)
    ]


def _fewest_facts(cards: Sequence[CheckpointCard]) -> list[str]:
    columns = [[fact(card) or "" for card in cards] for fact in _FACTS]
    telling = [column for column in columns if len(set(column)) > 1]
    for count in range(1, min(_MOST_FACTS, len(telling)) + 1):
        for some in itertools.combinations(telling, count):
            words = ["".join(parts) for parts in zip(*some, strict=True)]
            if len(set(words)) == len(words):
                return words
    words = ["".join(column[i] for column in telling) for i in range(len(cards))]
    return [
        f"{each} (number {words[: i + 1].count(each)})" if words.count(each) > 1 else each
        for i, each in enumerate(words)
    ]
