from pathlib import Path

import pytest

from tests.networks import write_checkpoint

ARMS = {
    "sre": {"model": "sre_resnet18"},
    "plain": {"model": "resnet18"},
    "augmented": {"model": "resnet18", "rotates_in_training": True},
}


@pytest.fixture(scope="session")
def networks(tmp_path_factory) -> dict[str, Path]:
    """Tiny untrained networks for the digits, by arm."""
    folder = tmp_path_factory.mktemp("digits")
    return {
        arm: write_checkpoint(folder, seed=seed, **settings)
        for seed, (arm, settings) in enumerate(ARMS.items())
    }


@pytest.fixture(scope="session")
def colour_networks(tmp_path_factory) -> dict[str, Path]:
    """As ``networks``, for the cells, which are in colour."""
    folder = tmp_path_factory.mktemp("cells")
    cells = {"dataset": "cells", "classes": tuple("abcdefgh"), "in_channels": 3}
    return {
        arm: write_checkpoint(folder, seed=seed, **cells, **settings)
        for seed, (arm, settings) in enumerate(ARMS.items())
    }
