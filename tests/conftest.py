import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The default deadline of 200 ms is flaky with torch; CI draws the same examples every time.
settings.register_profile("sre", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("sre")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real MedMNIST files."""
    given = os.environ.get("SRE_DATA_DIR", "")
    if not given:
        pytest.skip("needs real MedMNIST files: set SRE_DATA_DIR to the folder that holds them")
    folder = Path(given)
    assert folder.is_dir(), f"SRE_DATA_DIR names {folder}, which is no folder"
    return folder
