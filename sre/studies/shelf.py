"""Which checkpoints are there for a data set, and which of them are compared?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sre.checkpoints import CheckpointCard, list_checkpoints
from sre.data.table import DatasetEntry
from sre.errors import SettingError, UnknownNameError
from sre.studies.naming import list_titles

ARMS = ("sre", "plain", "augmented")  # the columns, in their order
MOST = len(ARMS)
MOST_SIDE_PX = 64  # to which a network may have them enlarged: a turn must not take minutes
TRAINED = "trained:"  # begins the name of what was trained on the page


@dataclass(frozen=True, slots=True)
class Network:
    """A checkpoint under the name by which a page asks for it."""

    name: str
    path: Path
    card: CheckpointCard

    @property
    def is_trained_here(self) -> bool:
        return self.name.startswith(TRAINED)


def trained_dir(cache_dir: Path) -> Path:
    """Folder of the checkpoints that were trained on the page: the app's own may be read-only."""
    return cache_dir / "trained"


def list_shelf(checkpoints_dir: Path, cache_dir: Path) -> list[Network]:
    """List all checkpoints that can be shown: those of the app, then those trained on the page."""
    folders = (("", checkpoints_dir), (TRAINED, trained_dir(cache_dir)))
    return [
        Network(prefix + path.name, path, card)
        for prefix, folder in folders
        for path, card in list_checkpoints(folder).items()
    ]


def networks_of(shelf: Sequence[Network], entry: DatasetEntry) -> dict[str, Network]:
    """Select by name those of a data set as it is now."""
    ours = (entry.name, entry.classes, entry.channels, entry.is_multi_label)
    return {
        network.name: network
        for network in shelf
        if ours
        == (
            (card := network.card).dataset,
            card.classes,
            card.in_channels,
            card.is_multi_label,
        )
        and card.side_px <= MOST_SIDE_PX
    }


def titles(networks: Mapping[str, Network]) -> dict[str, str]:
    """Give each network, by name, a title that no other has."""
    cards = [network.card for network in networks.values()]
    where = [", trained here" if n.is_trained_here else "" for n in networks.values()]
    return dict(zip(networks, list_titles(cards, where), strict=True))


def usual(networks: Mapping[str, Network]) -> list[Network]:
    """Choose what is compared unless others are asked for: the app's least costly of each arm.

    What was trained on the page stands in where the app brings nothing.
    """
    chosen = []
    for arm in ARMS:
        of_arm = [n for n in networks.values() if n.card.arm == arm]
        if of_arm:
            chosen.append(min(of_arm, key=lambda n: (n.is_trained_here, *_cost(n))))
    return chosen or sorted(networks.values(), key=_cost)[:MOST]


def _cost(network: Network) -> tuple[int, int, str]:
    return network.card.side_px, network.card.width, network.name


def choose(networks: Mapping[str, Network], names: object) -> list[Network]:
    """Choose networks by their names, which may be anything; None chooses the usual ones.

    Raises: SettingError: they are no names, too many, or named twice
        UnknownNameError: there is none of that name for the data set
    """
    if names is None:
        return usual(networks)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SettingError(f"networks must be a list of names, got {str(names)[:40]!r}")
    if not 1 <= len(names) <= MOST or len(set(names)) < len(names):
        raise SettingError(f"networks must be 1 to {MOST} different names, got {len(names)}")
    for name in names:
        if name not in networks:
            raise UnknownNameError(
                f"there is no network {name[:80]!r} for this data set; choose another"
            )
    return [networks[name] for name in names]
