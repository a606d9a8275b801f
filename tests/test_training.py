from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import save_file
from torch import nn

from sre.augmentation import augment
from sre.data.split import Split
from sre.errors import SettingError, TrainingError, UnknownNameError
from sre.gmr import parameter_groups
from sre.protocols import find_protocol, present, soft_disc
from sre.runstate import put_state, take_state
from sre.settings import TrainConfig
from sre.training import (
    TURNED_DEG,
    BatchHalved,
    EpochDone,
    StepDone,
    learning_rate_factor,
    loss_of,
    negative_log_likelihood,
    train,
)
from tests.networks import CARD, tiny_network

QUICK = TrainConfig(epochs=2, batch_size=4, side_px=24)
STILL = replace(QUICK, scale=0.0, shift=0.0, jitter=0.0, mask_rate=0.0)


def small_model(outputs: int = 2) -> nn.Module:
    """Build a network that learns in milliseconds."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.AvgPool2d(6),
        nn.Conv2d(1, 4, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, outputs),
    )


def halves(count: int, *, seed: int = 0) -> Split:
    """Draw images that are bright above (class 0) or below (class 1)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 60, (count, 24, 24))
    for image, label in zip(images, labels, strict=True):
        image[12 * label : 12 * label + 12] += 150
    return Split(images.astype(np.uint8), labels)


def run(model: nn.Module, config: TrainConfig, **changes: object) -> list:
    given = {"train_split": halves(10), "val_split": halves(6, seed=1), "is_multi_label": False}
    given |= changes
    splits = given.pop("train_split"), given.pop("val_split")
    return list(train(model, *splits, config=config, **given))


# Settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be from 1 to 10000, got 0"),
        ({"epochs": 10_001}, "epochs must be from 1 to 10000"),
        ({"batch_size": 1}, "batch_size must be from 2 to 4096, got 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and at most 1, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and at most 1, got nan"),
        ({"weight_decay": -0.1}, "weight_decay must be from 0 to 1"),
        ({"warmup": 1.0}, "warmup must be from 0 to below 1"),
        ({"scale": 1.0}, "scale must be from 0 to below 1"),
        ({"shift": -0.1}, "shift must be from 0 to below 1"),
        ({"jitter": float("inf")}, "jitter must be from 0 to below 1, got inf"),
        ({"mask_rate": 1.1}, "mask_rate must be from 0 to 1, got 1.1"),
        ({"side_px": 23}, "side_px must be from 24 to 224, got 23"),
        ({"side_px": 225}, "side_px must be from 24 to 224"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 2**63}, "seed must be a whole number"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(SettingError, match=f"^{message}"):
        TrainConfig(**change)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(UnknownNameError, match=r"^unknown protocol 'disk'; did you mean 'disc'\?$"):
        TrainConfig(protocol="disk")


def test_every_setting_out_of_range_has_a_test():
    tested = {
        name
        for mark in test_settings_out_of_range_are_refused.pytestmark
        for change, _ in mark.args[1]
        for name in change
    }
    assert tested == {f.name for f in fields(TrainConfig)} - {"rotate", "protocol", "balance"}


# Learning


def test_a_separable_problem_is_learned():
    config = replace(QUICK, epochs=8, learning_rate=0.02)
    events = run(small_model(), config, train_split=halves(40), val_split=halves(20, seed=1))
    epochs = [e for e in events if isinstance(e, EpochDone)]
    assert epochs[-1].val_accuracy == 1
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].val_loss < 0.1


def test_events_count_steps_and_epochs():
    events = run(small_model(), QUICK)
    # 10 images in batches of at most 4 are three steps.
    places = [(e.epoch, e.step, e.steps) for e in events if isinstance(e, StepDone)]
    assert places == [(epoch, step, 3) for epoch in (1, 2) for step in (1, 2, 3)]
    assert [e.epoch for e in events if isinstance(e, EpochDone)] == [1, 2]
    assert isinstance(events[-1], EpochDone)
    first = [e.loss for e in events[:3]]
    assert events[3].train_loss == pytest.approx(np.mean(first))


def test_training_stops_when_nobody_asks_for_more():
    model = small_model()
    events = train(model, halves(10), halves(6), config=QUICK, is_multi_label=False)
    next(events)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    events.close()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("count", [9, 2, 1])
def test_no_batch_is_left_with_one_image_unless_there_is_but_one(count):
    sizes = []

    class Counting(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return super().forward(x)

    model = Counting(*small_model())
    config = replace(QUICK, epochs=1, batch_size=8)
    run(model, config, train_split=halves(count))
    learned, looked_at = sizes[: -1 - len(TURNED_DEG)], sizes[-1 - len(TURNED_DEG) :]
    assert sorted(learned) == {9: [4, 5], 2: [2], 1: [1]}[count]
    assert set(looked_at) == {6}  # the validation images


def test_one_seed_gives_one_result_and_another_another():
    results = []
    for seed in (3, 3, 4):
        model = small_model()
        run(model, replace(QUICK, seed=seed))
        results.append(model[-1].weight.detach())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_global_random_state_has_no_say():
    results = []
    for state in (0, 1):
        model = small_model()
        torch.manual_seed(state)
        run(model, QUICK)
        results.append(model[-1].weight.detach())
    assert torch.equal(*results)


class Recorder(nn.Module):
    """Keeps what it is shown."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.clone())
        return self.model(x)


@pytest.mark.parametrize("rotate", [False, True])
def test_two_models_see_the_same_pictures(rotate):
    one = Recorder(small_model())
    other = Recorder(tiny_network(replace(CARD, classes=("a", "b"), width=1)))
    for model in (one, other):
        run(model, replace(QUICK, epochs=1, rotate=rotate))
    assert len(one.seen) == len(other.seen) == 3
    assert all(torch.equal(a, b) for a, b in zip(one.seen, other.seen, strict=True))


def test_the_two_networks_of_a_comparison_train():
    for name in ("sre_resnet18", "resnet18"):
        model = tiny_network(replace(CARD, model=name, classes=("a", "b"), width=2))
        events = run(model, replace(QUICK, epochs=1))
        assert isinstance(events[-1], EpochDone)
        assert not model.training


def test_the_best_epoch_is_restored():
    # Validation images with their labels exchanged: the better it learns, the worse it does.
    wrong = halves(20, seed=1)
    wrong = Split(wrong.images, 1 - wrong.labels)
    config = replace(QUICK, epochs=4, learning_rate=0.02)
    model, states, told = small_model(), {}, []
    for event in train(model, halves(20), wrong, config=config, is_multi_label=False):
        if isinstance(event, EpochDone):
            states[event.epoch] = {n: v.clone() for n, v in model.state_dict().items()}
            told.append(event)
    best = max(told, key=lambda e: (e.val_accuracy, -e.val_loss)).epoch
    assert best == max(e.epoch for e in told if e.is_best)
    assert best < 4
    assert all(torch.equal(v, states[best][n]) for n, v in model.state_dict().items())
    assert not model.training


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_loss_that_is_no_number_says_what_to_do(where):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = small_model()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            broken = self.training == (where == "training")
            return self.model(x) * (float("nan") if broken else 1.0)

    message = "^the loss became nan in epoch 1; try a lower learning rate than 0.002$"
    with pytest.raises(TrainingError, match=message):
        run(Broken(), QUICK)


def test_many_labels_at_once_are_learned():
    single = halves(40)
    both = np.stack([single.labels, 1 - single.labels], 1).astype(np.uint8)
    split = Split(single.images, both)
    config = replace(QUICK, epochs=8, learning_rate=0.02)
    events = run(small_model(), config, train_split=split, val_split=split, is_multi_label=True)
    assert events[-1].val_accuracy > 0.95
    assert events[-1].val_loss < 0.3


@pytest.mark.parametrize("name", ["sre_resnet18", "gmr_resnet18", "resnet18"])
def test_balance_matters_to_radial_layers_alone_and_leaves_no_trace(name):
    card = replace(CARD, model=name, classes=("a", "b"), width=1)
    models = [tiny_network(card) for _ in range(2)]
    for model, balance in zip(models, (False, True), strict=True):
        run(model, replace(QUICK, balance=balance))
    one, other = (model.state_dict() for model in models)
    assert set(one) == set(other)
    same = all(torch.equal(value, other[n]) for n, value in one.items())
    assert same == (name == "resnet18")


# Breaking off and going on


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["sre_resnet18", "gmr_resnet18", "resnet18"])
@pytest.mark.parametrize(("steps", "balance"), [(4, False), (7, False), (7, True)])
def test_a_run_that_broke_off_goes_on_to_the_same_weights(tmp_path, name, steps, balance):
    config, keep = replace(QUICK, epochs=4, balance=balance), tmp_path / "run.unfinished"
    card = replace(CARD, model=name, classes=("a", "b"), width=1)
    unbroken, broken, resumed = (tiny_network(card) for _ in range(3))
    for parameter in resumed.parameters():
        nn.init.zeros_(parameter)  # everything must come from the file
    whole = run(unbroken, config)
    first = train(
        broken, halves(10), halves(6, seed=1), config=config, is_multi_label=False, keep=keep
    )
    told = [next(first) for _ in range(steps)]
    first.close()
    rest = run(resumed, config, keep=keep)
    epochs = [[e for e in events if isinstance(e, EpochDone)] for events in (told, rest, whole)]
    assert rest[: len(epochs[0])] == epochs[0]  # told again
    timeless = [[replace(e, seconds=0.0) for e in events] for events in epochs[1:]]
    assert timeless[0] == timeless[1]
    assert rest[-1].seconds > 0
    again = state_of(resumed)
    assert all(torch.equal(value, again[n]) for n, value in unbroken.state_dict().items())


def test_what_was_put_back_is_not_changed_by_what_comes_after():
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        model(torch.rand(2, 1, 24, 24)).sum().backward()
        optimizer.step()

    step()
    state = take_state(model, optimizer)
    before = {name: value.clone() for name, value in state.items()}
    put_state(state, model, optimizer)
    step()
    assert all(torch.equal(value, before[name]) for name, value in state.items())


def test_a_finished_run_tells_its_epochs_and_brings_its_best_state(tmp_path):
    keep = tmp_path / "run.unfinished"
    one, other = small_model(), small_model()
    whole = run(one, QUICK, keep=keep)
    assert run(other, QUICK, keep=keep) == [e for e in whole if isinstance(e, EpochDone)]
    again = state_of(other)
    assert all(torch.equal(value, again[n]) for n, value in one.state_dict().items())


@pytest.mark.parametrize("fault", ["settings", "damaged", "format"])
def test_what_is_no_such_run_is_begun_anew(tmp_path, fault):
    keep = tmp_path / "run.unfinished"
    run(small_model(), QUICK, keep=keep, settings="a")
    if fault == "damaged":
        keep.write_bytes(keep.read_bytes()[:-100])
    if fault == "format":
        save_file({}, keep, metadata={"format": "99", "settings": "a"})
    settings = "b" if fault == "settings" else "a"
    events = run(small_model(), QUICK, keep=keep, settings=settings)
    assert isinstance(events[0], StepDone)


def test_a_file_that_cannot_be_written_ends_the_run_in_a_sentence(tmp_path, monkeypatch):
    keep, model, kept = tmp_path / "run.unfinished", small_model(), []
    written = iter([True, False])

    def fill(tensors, path, **settings):
        if not next(written):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, path, **settings)
        kept.append(state_of(model))

    monkeypatch.setattr("sre.runstate.save_file", fill)
    message = (
        r"^cannot write run.unfinished \(No space left on device\); free some space and start the "
        r"run again, which goes on from the last epoch that was written$"
    )
    with pytest.raises(TrainingError, match=message):
        run(model, replace(QUICK, epochs=3), keep=keep)
    assert [p.name for p in tmp_path.iterdir()] == ["run.unfinished"]  # the first epoch's, whole
    monkeypatch.undo()
    assert isinstance(run(small_model(), replace(QUICK, epochs=3), keep=keep)[0], EpochDone)


def test_stopping_ends_the_epoch_early_and_keeps_the_best():
    model = small_model()
    events = run(model, replace(QUICK, epochs=5), should_stop=iter([False] * 4 + [True]).__next__)
    assert [type(e).__name__ for e in events] == ["StepDone"] * 3 + ["EpochDone"] + [
        "StepDone", "StepDone", "EpochDone",
    ]  # fmt: skip
    assert not model.training


class Greedy(nn.Module):
    """Wants more memory than there is for batches above a size; fails as devices do."""

    def __init__(self, most: int, error: Exception):
        super().__init__()
        self.model, self.most, self.error = small_model(), most, error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) > self.most:
            self.model[1].weight.data.fill_(0)  # what half a step leaves behind must not stay
            raise self.error
        return self.model(x)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_batches_are_halved_when_memory_runs_out(error):
    model = Greedy(5, error)
    events = run(model, replace(QUICK, batch_size=20), train_split=halves(20))
    told = [e for e in events if not isinstance(e, StepDone)]
    assert told[:2] == [BatchHalved(1, 10), BatchHalved(1, 5)]
    assert [e.steps for e in events if isinstance(e, StepDone)] == [4] * 8
    # What half an epoch did is undone: the same as with small batches from the start.
    same = Greedy(5, error)
    run(same, replace(QUICK, batch_size=5), train_split=halves(20))
    again = state_of(same)
    assert all(torch.equal(value, again[n]) for n, value in model.state_dict().items())


def test_memory_that_is_too_small_for_any_batch_is_said():
    message = "^memory is too small even for batches of 2 images; choose a smaller width or side$"
    with pytest.raises(TrainingError, match=message):
        run(Greedy(1, MemoryError()), QUICK)


def test_a_lost_gpu_is_said():
    message = (
        "^the GPU stopped working in epoch 1; start the run again, which goes on from the epoch "
        "before$"
    )
    with pytest.raises(TrainingError, match=message):
        run(Greedy(1, RuntimeError("CUDA error: unspecified launch failure")), QUICK)


def test_a_bug_is_not_hidden():
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        run(Greedy(1, RuntimeError("a bug")), QUICK)


# Its parts


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (55, 0.505), (100, 0.01), (200, 0.01)],
)
def test_the_learning_rate_rises_in_a_line_and_falls_as_a_cosine(step, factor):
    assert learning_rate_factor(step, 100, 0.1) == pytest.approx(factor)


def test_the_learning_rate_of_a_run_of_one_step():
    assert learning_rate_factor(0, 1, 0.1) == 1
    assert learning_rate_factor(0, 1, 0.0) == 1


def test_losses_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, np.log(3.0)]])
    assert_allclose(
        loss_of(logits, torch.tensor([0, 1]), is_multi_label=False),
        (np.log(2) - np.log(0.75)) / 2,
        rtol=1e-6,
    )
    labels = torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8)
    assert_allclose(
        loss_of(logits, labels, is_multi_label=True), (3 * np.log(2) - np.log(0.75)) / 4, rtol=1e-6
    )


def test_likelihoods_by_hand():
    found = np.array([[0.5, 0.5], [0.25, 0.75]])
    assert negative_log_likelihood(found, np.array([0, 1])) == pytest.approx(
        -np.log(0.5 * 0.75) / 2
    )
    labels = np.array([[1, 0], [0, 0]])
    assert negative_log_likelihood(found, labels) == pytest.approx(
        -np.log(0.5 * 0.5 * 0.75 * 0.25) / 4
    )
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) < 30  # never infinite


def test_norms_and_biases_are_spared_the_decay():
    model = small_model()
    decayed, spared = parameter_groups(model, weight_decay=0.05, decays_vectors=False)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0)
    assert {p.shape for p in decayed["params"]} == {(4, 1, 1, 1), (2, 64)}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


# Augmentation


def draw(config: TrainConfig, pixels: torch.Tensor, *, seed: int = 0) -> torch.Tensor:
    return augment(pixels, config, torch.Generator().manual_seed(seed))


def test_without_augmentation_images_are_only_normalised():
    pixels = torch.rand(3, 1, 24, 24)
    torch.testing.assert_close(draw(STILL, pixels), pixels * 2 - 1, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "change",
    [{"scale": 0.3}, {"shift": 0.3}, {"jitter": 0.3}, {"mask_rate": 1.0}, {"rotate": True}],
    ids=str,
)
def test_each_augmentation_changes_images_within_range(change):
    pixels = torch.rand(8, 3, 24, 24)
    plain, changed = draw(STILL, pixels), draw(replace(STILL, **change), pixels)
    assert (changed - plain).abs().amax((1, 2, 3)).min() > 0.05
    assert changed.min() >= -1
    assert changed.max() <= 1


def test_masks_are_the_disc_in_grey():
    white = torch.ones(50, 1, 24, 24)
    corners = draw(replace(STILL, mask_rate=0.5), white)[:, 0, 0, 0]
    assert set(corners.tolist()) == {0, 1}
    masked = draw(replace(STILL, mask_rate=1.0), white)
    torch.testing.assert_close(masked, soft_disc(24).expand_as(masked))


def test_rotation_turns_to_every_side_and_fills_with_grey():
    pixels = torch.zeros(64, 1, 24, 24)
    pixels[:, :, 11:13, 17:21] = 1  # right of the middle
    turned = draw(replace(STILL, rotate=True), pixels)[:, 0] > 0.1
    rows, columns = torch.arange(24)[:, None] - 11.5, torch.arange(24)[None] - 11.5
    angles = torch.atan2(-(turned * rows).sum((1, 2)), (turned * columns).sum((1, 2)))
    assert torch.histc(angles, 4, -torch.pi, torch.pi).min() >= 8  # of 16 expected
    white = draw(replace(STILL, rotate=True), torch.ones(8, 1, 24, 24))
    assert white.min() == 0


def test_training_shows_what_the_protocol_shows():
    """A masked image, neither scaled nor shifted, is what validation sees."""
    pixels = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(
        draw(replace(STILL, mask_rate=1.0), pixels),
        present(pixels, find_protocol("disc"), angle_deg=0.0),
        atol=1e-5,
        rtol=0,
    )


def test_the_same_numbers_are_drawn_with_and_without_rotation():
    pixels = torch.rand(4, 1, 24, 24)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    for rotate, generator in zip((False, True), generators, strict=True):
        augment(pixels, replace(STILL, rotate=rotate), generator)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
