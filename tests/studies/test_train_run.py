from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sre.checkpoints import load_card, load_checkpoint
from sre.errors import CheckpointError, DataError, SettingError, TrainingError
from sre.settings import TrainConfig
from sre.studies import estimate, train_run
from sre.studies.answering import Asking
from sre.studies.estimate import Estimate, estimate_run
from sre.studies.train_run import Planned, Saved, run_training
from sre.training import EpochDone, StepDone, train
from tests.data.files import breast
from tests.networks import tiny_network

CONFIG = TrainConfig(epochs=3, batch_size=4)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("data")
    np.savez(made / "breastmnist.npz", **breast())
    return made


@pytest.fixture
def start(data_dir, tmp_path, monkeypatch):
    """Begin a run of milliseconds: start(budget_s=..., output=...)."""
    for name in ("ANGLES_DEG", "FEW_ANGLES_DEG"):
        monkeypatch.setattr(train_run, name, (0.0, 90.0))

    def run(**changes):
        given = {
            "config": CONFIG, "width": 1, "kernel_sizes": (3, 3, 3, 3), "data_dir": data_dir,
            "output": tmp_path / "out", "device": "cpu", "command": "a test",
        }  # fmt: skip
        return run_training("breastmnist", "resnet18", **given | changes)

    return run


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


USUAL = "breastmnist-resnet18-w1"


def test_a_repeated_run_keeps_its_figures_until_there_are_new_ones(start, tmp_path):
    (*_, first) = start()
    for event in start():
        there = load_card(first.path)
        assert there.test == first.card.test
        assert isinstance(event, Saved) or there == first.card
    assert names(tmp_path / "out") == [f"{USUAL}.safetensors"]


def test_a_network_that_quarter_turns_do_not_change_is_asked_once_for_all_four(
    data_dir, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        Asking, "_answering", lambda self, who, pose, real=Asking._answering: (
            asked.append(pose.angle_deg) or real(self, who, pose)
        )
    )  # fmt: skip
    for model in ("sre_resnet18", "resnet18"):
        asked.clear()
        (*_, last) = run_training(
            "breastmnist", model, config=CONFIG, width=2, kernel_sizes=(3, 3, 3, 3),
            data_dir=data_dir, output=tmp_path / "out", device="cpu", command="a test",
        )  # fmt: skip
        assert (last.card.validation["angles"], last.card.test["angles"]) == (12, 36)
        assert len(asked) == (3 + 9 if model == "sre_resnet18" else 12 + 36)


def test_events_begin_with_the_plan_and_end_with_the_file(start, tmp_path):
    events = list(start())
    assert events[0] == Planned(3, events[-1].card.parameters, events[-1].card.multiply_adds, None)
    assert isinstance(events[-1], Saved)
    assert names(tmp_path / "out") == [f"{USUAL}.safetensors"]
    epochs = [e for e in events if isinstance(e, EpochDone)]
    assert events[-1].card.best_epoch == max(e.epoch for e in epochs if e.is_best)
    assert events[-1].card.seconds == pytest.approx(epochs[-1].seconds, abs=0.06)


def test_a_run_that_broke_off_goes_on(start, tmp_path, data_dir):
    [*_, whole] = start(output=tmp_path / "whole")
    events = start()
    for event in events:
        if isinstance(event, EpochDone) and event.epoch == 2:
            break
    events.close()
    [kept] = names(tmp_path / "out")
    assert kept.endswith(".unfinished")
    again = list(start())
    steps = [e.epoch for e in again if isinstance(e, StepDone)]
    assert set(steps) == {3}
    one, other = (load_checkpoint(e.path)[0].state_dict() for e in (whole, again[-1]))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert again[-1].card.test == whole.card.test
    assert again[-1].card.best_epoch == whole.card.best_epoch
    assert names(tmp_path / "out") == [f"{USUAL}.safetensors"]


def test_the_data_may_not_go_meanwhile(start, tmp_path):
    other = tmp_path / "data"
    other.mkdir()
    np.savez(other / "breastmnist.npz", **breast())
    events = start(data_dir=other)
    assert any(isinstance(e, EpochDone) for e in events if isinstance(e, EpochDone))
    events.close()
    (other / "breastmnist.npz").unlink()
    with pytest.raises(DataError, match=r"breastmnist.npz is not there; download BreastMNIST"):
        list(start(data_dir=other))
    assert [n.rpartition(".")[2] for n in names(tmp_path / "out")] == ["unfinished"]


def test_no_run_takes_the_file_of_another(start, tmp_path):
    paths = [list(start(config=replace(CONFIG, seed=seed)))[-1].path for seed in (1, 2, 1, 2)]
    assert paths[0].stem == USUAL
    assert paths[1].stem == f"{USUAL}-{load_card(paths[1]).fingerprint}"
    assert paths[2:] == paths[:2]  # the same run again has its own
    assert [load_card(path).seed for path in paths[:2]] == [1, 2]
    with pytest.raises(
        CheckpointError,
        match=rf"^{USUAL}.safetensors is the checkpoint of another run; name another file or "
        r"delete it$",
    ):
        next(start(config=replace(CONFIG, seed=3), output=paths[0]))
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not ours")
    with pytest.raises(CheckpointError, match="the checkpoint of another run"):
        next(start(output=foreign))
    assert foreign.read_bytes() == b"not ours"


def test_a_run_cut_short_does_not_replace_a_whole_one(start, tmp_path):
    whole = list(start())[-1]
    short = list(start(should_stop=lambda: True))[-1]
    assert (whole.card.epochs, short.card.epochs) == (3, 1)
    assert short.path.stem == f"{USUAL}-{whole.card.fingerprint}"
    assert load_card(whole.path) == whole.card
    assert list(start())[-1].path == whole.path


def test_a_whole_run_in_a_folder_leaves_one_cut_short_alone(start, tmp_path):
    short = list(start(should_stop=lambda: True))[-1]
    whole = list(start())[-1]
    assert short.path.stem == USUAL
    assert load_card(short.path) == short.card
    assert whole.path.stem == f"{USUAL}-{whole.card.fingerprint}"
    assert list(start(output=short.path))[-1].card.epochs == 3  # a file that is named is replaced


def test_a_run_that_is_cut_within_its_last_epoch_is_not_the_whole_one(start, tmp_path):
    whole = list(start(config=replace(CONFIG, epochs=1)))[-1]
    cut = list(start(config=replace(CONFIG, epochs=1), should_stop=lambda: True))[-1]
    assert (whole.card.epochs, whole.card.cut_short) == (1, False)
    assert (cut.card.epochs, cut.card.cut_short) == (1, True)
    assert cut.path != whole.path
    assert load_card(whole.path) == whole.card
    # Two that were cut at different steps are different networks.
    again = list(start(config=replace(CONFIG, epochs=1), should_stop=lambda: True))[-1]
    assert again.path not in {whole.path, cut.path}
    assert list(start(config=replace(CONFIG, epochs=1)))[-1].path == whole.path


def test_stopping_keeps_and_evaluates_the_best(start, tmp_path):
    steps = []

    def should_stop() -> bool:
        steps.append(1)
        return len(steps) == 3

    events = list(start(should_stop=should_stop))
    assert [e.epoch for e in events if isinstance(e, EpochDone)] == [1, 2]
    assert events[-1].card.test["angles"] == 2
    assert names(tmp_path / "out") == [f"{USUAL}.safetensors"]


@pytest.mark.parametrize("epoch", [1, 2])
def test_what_ends_a_run_leaves_its_best_epoch(start, tmp_path, monkeypatch, epoch):
    real = train_run.train

    def failing(*args, **kwargs):
        for event in real(*args, **kwargs):
            if event.epoch == epoch:
                raise TrainingError(f"the loss became nan in epoch {epoch}")
            yield event

    monkeypatch.setattr(train_run, "train", failing)
    kept = "" if epoch == 1 else rf"; epoch 1, the best so far, is kept in {USUAL}.safetensors"
    with pytest.raises(TrainingError, match=rf"^the loss became nan in epoch {epoch}{kept}$"):
        list(start())
    found = [p for p in (tmp_path / "out").iterdir() if p.suffix == ".safetensors"]
    assert len(found) == epoch - 1
    for path in found:
        assert load_card(path).best_epoch == 1
        load_checkpoint(path)


# Budgets


def test_a_budget_plans_epochs_and_a_break_keeps_the_plan(start, tmp_path, monkeypatch):
    estimates = iter([Estimate(0.1, 10.0, 30.0), Estimate(0.1, 1.0, 3.0)])
    monkeypatch.setattr(train_run, "estimate_run", lambda *_, **__: next(estimates))
    events = start(budget_s=25.0)
    plan = next(events)
    assert (plan.epochs, plan.estimate.epoch_s) == (2, 10.0)
    while not isinstance(next(events), EpochDone):
        pass
    events.close()
    plan, *rest = start(budget_s=25.0)
    assert (plan.epochs, plan.estimate) == (2, None)
    assert (rest[-1].card.epochs, rest[-1].card.config["epochs"]) == (2, 2)


def test_time_is_up_when_it_is_up(start, monkeypatch):
    monkeypatch.setattr(train_run, "estimate_run", lambda *_, **__: Estimate(0, 0.001, 0.001))
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(train_run.time, "monotonic", lambda: float(next(clock)))
    epochs = [e for e in start(budget_s=5.0) if isinstance(e, EpochDone)]
    assert 1 <= len(epochs) < 3


def test_what_was_spent_before_a_break_counts(start, monkeypatch):
    monkeypatch.setattr(train_run, "estimate_run", lambda *_, **__: Estimate(0, 0.001, 0.001))
    now = train_run.time.monotonic()
    monkeypatch.setattr(train_run.time, "monotonic", lambda: now)

    def ticking(events):
        nonlocal now
        for event in events:
            yield event
            now += 1000.0 * isinstance(event, StepDone)  # what each step takes

    events = ticking(start(budget_s=2500.0))
    assert [type(next(events)) for _ in range(4)] == [Planned, StepDone, StepDone, EpochDone]
    events.close()
    now += 5000.0  # in which nothing ran
    more = [e for e in ticking(start(budget_s=2500.0)) if isinstance(e, StepDone)]
    assert [(step.epoch, step.step) for step in more] == [(2, 1)]


@pytest.mark.parametrize("budget", [0.0, 0.5, float("nan"), float("inf"), 1e6])
def test_a_budget_out_of_range_is_refused(start, budget):
    with pytest.raises(
        SettingError,
        match=r"^the budget must be from 1 second to 10080 minutes, got .* seconds; try 2 minutes$",
    ):
        next(start(budget_s=budget))


@pytest.mark.parametrize(
    ("budget_s", "epoch_s", "most", "epochs"),
    [(100, 10, 50, 9), (100, 10, 5, 5), (1, 10, 5, 1), (9.9, 1, 50, 8)],
)
def test_nine_tenths_of_a_budget_are_planned(budget_s, epoch_s, most, epochs):
    assert Estimate(0.1, epoch_s, 0).epochs_within(budget_s, most=most) == epochs


def test_an_estimate_leaves_the_model_as_it_is(data_dir):
    model = tiny_network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    split = train_run.load_split("breastmnist", "train", data_dir=data_dir)
    found = estimate_run(
        model, split, split, config=replace(CONFIG, epochs=7), is_multi_label=False
    )
    assert 0 < 2 * found.step_s <= found.epoch_s  # two batches
    assert found.total_s == pytest.approx(7 * found.epoch_s)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_where_kernels_are_chosen_at_first_sight_that_does_not_count(data_dir, monkeypatch):
    split = train_run.load_split("breastmnist", "train", data_dir=data_dir)
    monkeypatch.setattr(estimate, "_chooses_kernels", lambda _: True)  # as on a GPU
    model, seen, clock = tiny_network(), [], [0.0]
    monkeypatch.setattr(estimate, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slow_at_first(network, *parts, **settings):
        seconds = 1.0 if seen else 100.0
        seen.append(network)
        for event in train(network, *parts, **settings):
            clock[0] += seconds
            yield event

    monkeypatch.setattr(estimate, "train", slow_at_first)
    found = estimate_run(model, split, split, config=CONFIG, is_multi_label=False)
    assert len(seen) == 2
    assert seen[0] is seen[1] is not model
    assert found.step_s == 1.0
