"""What is kept of a network's answers, and when it counts."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.runs import Said, file_of, find_said, read_said, write_said
from sre.errors import SettingError
from sre.studies.sweep import Sweep
from sre.studies.sweep_file import sweep_of
from tests.networks import CARD

FILE = {
    "width": 4,
    "datasets": {"digits": {"epochs": 3}},
    "arms": [{"name": "sre", "model": "sre_resnet18"},
             {"name": "averaged", "averages": "sre", "turns": 4}],
}  # fmt: skip


@pytest.fixture
def sweep() -> Sweep:
    return sweep_of(FILE)


@pytest.fixture
def said() -> Said:
    decided = np.random.default_rng(0).integers(0, 10, (36, 40))
    return Said(CARD, decided, np.linspace(0.5, 1, 201))


def test_what_is_kept_is_read_back(tmp_path, said):
    path = tmp_path / "runs" / "a.safetensors"
    write_said(said, path)
    found = read_said(path)
    assert found.card == said.card
    assert (found.decided == said.decided).all()
    assert (found.areas == said.areas).all()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_a_run_is_known_if_it_had_the_settings_that_are_asked_for(tmp_path, sweep, said):
    arm = sweep.arm("sre")
    run = sweep.run_of("digits", arm, 1)
    assert find_said(run, arm, tmp_path) is None
    card = replace(CARD, config=run_config(run), seed=1)
    assert card.fingerprint == run.fingerprint(card.dataset_md5)
    write_said(replace(said, card=card), file_of(run, arm, tmp_path))
    assert find_said(run, arm, tmp_path).card == card
    longer = replace(run, config=replace(run.config, epochs=4))
    assert find_said(longer, arm, tmp_path) is None


def test_an_average_has_a_file_of_its_own(tmp_path, sweep):
    names = [file_of(sweep.run_of("digits", arm, 1), arm, tmp_path).name for arm in sweep.arms]
    assert names == ["digits-sre-w4-s1.safetensors", "digits-averaged-w4-s1.safetensors"]


@pytest.mark.parametrize("content", [b"", b"nonsense", "cut", "no card"])
def test_a_damaged_file_is_one_sentence(tmp_path, said, content):
    path = tmp_path / "a.safetensors"
    if content == "no card":
        save_file({"decided": said.decided, "areas": said.areas}, path)
    elif content == "cut":
        write_said(said, path)
        path.write_bytes(path.read_bytes()[:-40])
    else:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=r"^a\.safetensors is damaged; delete it and run bench"):
        read_said(path)


def run_config(run) -> dict[str, object]:
    return {name: getattr(run.config, name) for name in run.config.__dataclass_fields__}
