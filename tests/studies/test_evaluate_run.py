import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sre.averaging import RotationAverage
from sre.checkpoints import load_checkpoint
from sre.data.store import load_split
from sre.errors import CheckpointError, SettingError, SREError
from sre.evaluation import classify
from sre.poses import Pose
from sre.protocols import find_protocol
from sre.statistics import bootstrap_weights
from sre.studies import answering
from sre.studies.answering import Asking, Measured
from sre.studies.contenders import Contender
from sre.studies.evaluate_figures import figures_of
from sre.studies.evaluate_files import as_json, check_output, rows, write_evaluation
from sre.studies.evaluate_run import EvaluationView, run_evaluation

ANGLES = (0.0, 90.0, 30.0)


def evaluate(paths: list[Path], **settings: object) -> EvaluationView:
    settings = {
        "data_dir": Path(),
        "angles_deg": ANGLES,
        "resamples": 200,
        "most_images": 60,
        **settings,
    }
    *steps, view = run_evaluation("digits", paths, **settings)
    assert all(isinstance(step, Measured) for step in steps)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[-1].total
    return view


@pytest.fixture(scope="module")
def view(networks) -> EvaluationView:
    return evaluate([networks["sre"], networks["plain"]], most_images=None)


def test_figures_are_those_of_the_answers(networks, view):
    data = load_split("digits", "test", data_dir=Path())
    model, card = load_checkpoint(networks["plain"])
    found = view.models[1]
    assert found.checkpoint == networks["plain"].name
    assert (view.images, len(found.angles)) == (400, 3)
    for figures, angle in zip(found.angles, ANGLES, strict=True):
        answers = classify(
            model, data.images, find_protocol("disc"), side_px=28, angle_deg=angle,
            is_multi_label=False,
        )  # fmt: skip
        right = answers.argmax(1) == data.labels
        assert figures.angle_deg == angle
        assert figures.accuracy.value == pytest.approx(right.mean(), abs=0.006)  # folded norms
        assert figures.accuracy.low <= figures.accuracy.value <= figures.accuracy.high
        assert len(figures.auc_by_label) == len(card.classes)
        assert figures.auc.value == pytest.approx(np.mean([a.value for a in figures.auc_by_label]))
        assert all(area.low <= area.value <= area.high for area in figures.auc_by_label)
    values = [angle.accuracy.value for angle in found.angles]
    assert found.accuracy_mean.value == pytest.approx(np.mean(values))
    assert found.accuracy_worst.value == pytest.approx(min(values))
    assert found.accuracy_spread.value == pytest.approx(np.std(values))
    assert 0 <= found.accuracy_spread.low <= found.accuracy_spread.high
    assert found.worst_angle_deg == ANGLES[int(np.argmin(values))]
    assert found.confusion.shape == (3, 10, 10)
    assert found.confusion.sum() == 3 * 400
    assert np.trace(found.confusion[0]) / 400 == pytest.approx(values[0])


def test_quarter_turns_change_nothing_for_sre_and_much_for_the_plain_network(view):
    sre, plain = view.models
    assert sre.angles[1].consistency.value == 1
    assert sre.angles[1].accuracy == sre.angles[0].accuracy
    assert plain.angles[0].consistency.value == 1
    # Untrained, it gives all images the same answer, but not by the same scores.
    for model, differs in ((sre, False), (plain, True)):
        areas = np.array([[a.value for a in model.angles[i].auc_by_label] for i in (0, 1)])
        assert (np.abs(areas[0] - areas[1]).max() > 0.01) == differs


def test_models_are_compared_in_pairs(view, networks):
    (pair,) = view.pairs
    sre, plain = view.models
    assert (pair.first, pair.second) == (sre.checkpoint, plain.checkpoint)
    difference = sre.accuracy_mean.value - plain.accuracy_mean.value
    assert pair.mean.value == pytest.approx(difference)
    assert pair.mean.low <= pair.mean.value <= pair.mean.high
    assert 0 < pair.mean_p <= 1
    same = evaluate([networks["sre"]])
    assert same.pairs == ()
    assert "at the worst" in same.headline
    assert max(view.models, key=lambda m: m.accuracy_mean.value).checkpoint in view.headline


def test_an_average_over_rotations_is_a_network_of_its_own(networks, tmp_path):
    found = evaluate([networks["plain"]], average_rotations=4, keep_dir=tmp_path)
    plain, average = found.models
    assert average.name == f"{plain.name}, mean of 4 rotations"
    assert (plain.rotations, average.rotations) == (1, 4)
    assert average.multiply_adds == 4 * plain.multiply_adds == 4 * plain.card.multiply_adds
    assert [pair.first for pair in found.pairs] == [plain.name]
    # Quarter turns only permute what is averaged.
    assert average.angles[1].consistency.value == 1
    data = load_split("digits", "test", data_dir=Path())
    model, _ = load_checkpoint(networks["plain"])
    answers = classify(
        RotationAverage(model, 4), data.images[found.indices], find_protocol("disc"), side_px=28,
        angle_deg=30.0, is_multi_label=False,
    )  # fmt: skip
    right = (answers.argmax(1) == data.labels[found.indices]).mean()
    assert average.angles[2].accuracy.value == pytest.approx(right, abs=0.02)
    # What was kept of the network is not taken for the average's.
    assert len(list(tmp_path.glob("*.npy"))) == 2 * (3 + 2)
    assert as_json(found)["models"][1]["averaged_rotations"] == 4


def test_files_of_one_name_are_told_apart_by_their_folders(networks, tmp_path):
    paths = [networks["sre"]]
    for folder in ("seed0", "seed1"):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / networks["plain"].name)
        paths[-1].write_bytes(networks["plain"].read_bytes())
    found = evaluate(paths)
    plain = networks["plain"].name
    names = [networks["sre"].name, f"seed0/{plain}", f"seed1/{plain}"]
    assert [model.name for model in found.models] == names
    assert len(found.pairs) == 3


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The networks that were really asked, once for each pose."""
    found, answering = [], Asking._answering

    def counted(self: Asking, who: Contender, pose: Pose):
        found.append(who.name)
        return answering(self, who, pose)

    monkeypatch.setattr(Asking, "_answering", counted)
    return found


def test_an_evaluation_that_was_broken_off_goes_on(networks, tmp_path, asked):
    keep, settings = (
        tmp_path / "keep",
        {"data_dir": Path(), "angles_deg": ANGLES, "most_images": 60},
    )
    events = run_evaluation("digits", [networks["plain"]], keep_dir=keep, **settings)
    while len(asked) < 3:
        next(events)
    events.close()
    assert len(list(keep.glob("*.npy"))) == 2
    whole = evaluate([networks["plain"]], keep_dir=keep)
    assert len(asked) == 1 + 3 + 2  # what was broken off; angles and flips
    assert evaluate([networks["plain"]], keep_dir=keep).models[0].angles == whole.models[0].angles
    assert len(asked) == 6
    # What is damaged is computed anew, and another network has answers of its own.
    next(iter(keep.glob("*.npy"))).write_bytes(b"damaged")
    evaluate([networks["plain"]], keep_dir=keep)
    assert len(asked) == 7
    evaluate([networks["sre"]], keep_dir=keep)
    assert len(asked) == 7 + 4  # of the quarter turns only one
    again = evaluate([networks["sre"]], keep_dir=keep)
    assert len(asked) == 7 + 4
    assert again.models[0].is_exact
    assert not list(keep.glob("*.part"))


def test_a_network_that_quarter_turns_do_not_change_is_asked_at_one_of_four(networks, asked):
    angles = (0.0, 90.0, 180.0, 270.0, 30.0, 120.0)
    sre, plain = evaluate([networks["sre"], networks["plain"]], angles_deg=angles).models
    assert (sre.is_exact, plain.is_exact) == (True, False)
    assert len(asked) == (2 + 2) + (6 + 2)
    assert sre.angles[4].accuracy == sre.angles[5].accuracy


def test_flips_scaled_and_shifted_images_are_further_conditions(networks, view):
    sre, plain = view.models
    assert [under.name for under in sre.conditions] == ["flip_vertical", "flip_horizontal"]
    assert all(under.consistency.value == 1 for under in sre.conditions)
    data, disc = load_split("digits", "test", data_dir=Path()), find_protocol("disc")
    model, _ = load_checkpoint(networks["plain"])
    answers = classify(
        model, data.images[:, ::-1].copy(), disc, side_px=28, angle_deg=0.0, is_multi_label=False
    )
    right = (answers.argmax(1) == data.labels).mean()
    assert plain.conditions[0].accuracy.value == pytest.approx(right, abs=0.006)
    placed = evaluate([networks["sre"]], with_placings=True, most_images=40, angles_deg=(0.0,))
    assert (placed.images, placed.of_images) == (40, 400)
    assert [under.poses for under in placed.models[0].conditions] == [1, 1, 12, 12, 12]
    some = evaluate([networks["sre"]], most_images=40, angles_deg=(0.0,))
    np.testing.assert_array_equal(some.indices, placed.indices)
    np.testing.assert_array_equal(some.labels, data.labels[some.indices])


def test_threads_share_the_work_and_change_nothing(networks, monkeypatch):
    alone = evaluate([networks["plain"]], angles_deg=(0.0,))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    assert evaluate([networks["plain"]], angles_deg=(0.0,)).models[0].angles == (
        alone.models[0].angles
    )
    assert sorted(set_to) == [1, 1, 2]
    assert set_to[-1] == 2


def test_a_folder_that_cannot_be_written_to_costs_only_time(networks, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert evaluate([networks["sre"]], keep_dir=tmp_path / "file").images == 60


@pytest.mark.parametrize(
    ("dataset", "settings", "message"),
    [
        ("digit", {}, r"^unknown data set 'digit'; did you mean 'digits'\?$"),
        ("organmnist3d", {}, r"^OrganMNIST3D holds volumes; choose a 2-D data set$"),
        ("cells", {}, r"has other classes or channels than the data set; choose another$"),
        ("digits", {"protocol": "disk"}, r"^unknown protocol 'disk'; did you mean 'disc'\?$"),
        ("digits", {"split": "train"}, r"^the split must be val or test, got 'train'$"),
        ("digits", {"resamples": 5}, r"^resamples must be from 100 to 100000, got 5; try 1000$"),
        ("digits", {"angles_deg": ()}, r"^give one angle or more, each once; try 0, 10, ..., 350$"),
        (
            "digits",
            {"average_rotations": 0},
            r"^average_rotations must be 1 or from 2 to 72, got 0",
        ),
        ("digits", {"angles_deg": (0.0, 0.0)}, r"^give one angle or more, each once;"),
    ],
)
def test_wrong_settings_are_named(networks, dataset, settings, message):
    with pytest.raises(SREError, match=message):
        next(run_evaluation(dataset, [networks["sre"]], **{"data_dir": Path(), **settings}))


def test_without_a_checkpoint_there_is_nothing_to_evaluate(tmp_path):
    with pytest.raises(CheckpointError, match=r"^no checkpoint of digits was given or found"):
        next(run_evaluation("digits", [], data_dir=Path()))
    with pytest.raises(CheckpointError, match=r"^a checkpoint was given twice; give each once$"):
        next(run_evaluation("digits", [tmp_path / "a", tmp_path / "a"], data_dir=Path()))
    with pytest.raises(CheckpointError, match=r"gone.safetensors does not exist"):
        next(run_evaluation("digits", [tmp_path / "gone.safetensors"], data_dir=Path()))


# Files


def test_json_holds_everything(view, tmp_path):
    write_evaluation(view, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == json.loads(json.dumps(as_json(view)))
    assert found["images"] == 400
    assert found["models"][0]["angles"][1]["consistency"]["value"] == 1
    assert found["models"][0]["card"]["model"] == "sre_resnet18"
    assert len(found["pairs"]) == 1


def test_csv_has_a_row_a_figure(view, tmp_path):
    write_evaluation(view, tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["network", "angle_deg", "figure", "value", "low", "high"]
    assert len(lines) == len(list(rows(view))) == 2 * (3 * (4 + 10) + 6 + 2 * 2) + 4
    chances = [line for line in lines if line[2].endswith("_p")]
    assert [line[2:] for line in chances] == [
        ["accuracy_p", str(view.pairs[0].upright_p), "", ""],
        ["accuracy_mean_p", str(view.pairs[0].mean_p), "", ""],
    ]
    # Drawing images anew adds to a spread, so that its interval may lie above it.
    others = [line for line in lines if line not in chances and line[2] != "accuracy_spread"]
    assert all(float(low) <= float(value) <= float(high) for *_, value, low, high in others)


def test_files_that_cannot_be_written_are_refused_before_the_work(view, tmp_path):
    for path, message in (
        (tmp_path / "found.txt", r"^found.txt must end in .json or .csv; name it so$"),
        (tmp_path / "no" / "found.json", r"^cannot write .*found.json; choose a folder that is"),
    ):
        with pytest.raises(SettingError, match=message):
            check_output(path)
    (tmp_path / "found.json").mkdir()
    with pytest.raises(SettingError, match=r"^cannot write"):
        check_output(tmp_path / "found.json")
    with pytest.raises(SettingError, match=r"^cannot write"):
        write_evaluation(view, tmp_path / "found.json")
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_answers_used_longest_ago_leave_a_full_folder(networks, tmp_path, monkeypatch):
    evaluate([networks["sre"]], keep_dir=tmp_path)
    of_sre = set(tmp_path.iterdir())
    evaluate([networks["plain"]], keep_dir=tmp_path)
    of_plain = set(tmp_path.iterdir()) - of_sre
    for path in of_sre | of_plain:
        os.utime(path, (1, 1) if path in of_sre else (2, 2))
    evaluate([networks["sre"]], keep_dir=tmp_path)  # so that its answers are the newer ones
    mine = tmp_path / "mine.npy"
    mine.write_bytes(b"another's")
    os.utime(mine, (0, 0))
    size = sum(path.stat().st_size for path in of_sre)
    monkeypatch.setattr(answering, "KEPT_BYTES", size)
    evaluate([networks["sre"]], keep_dir=tmp_path)
    assert set(tmp_path.iterdir()) == of_sre | {mine}


def test_multi_label_sets_have_an_area_a_label_and_no_confusion(monkeypatch, networks):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (60, 4))
    answers = np.clip(labels * 0.3 + random.random((2, 60, 4)) * 0.7, 0, 1)
    _, card = load_checkpoint(networks["sre"])
    object.__setattr__(card, "is_multi_label", True)
    object.__setattr__(card, "classes", tuple("abcd"))
    who = Contender("x", networks["sre"], card, 1, nn.Identity(), "")
    by_pose = {("x", Pose(0.0)): answers[0], ("x", Pose(90.0)): answers[1]}
    weights = bootstrap_weights(60, resamples=100)
    figures, scores = figures_of(who, by_pose, labels, (0.0, 90.0), weights)
    assert figures.balanced_accuracy_mean is None
    assert figures.confusion.shape == (0, 4, 4)
    assert len(figures.angles[0].auc_by_label) == 4
    none_has_it = labels * [1, 1, 1, 0]
    lacking, _ = figures_of(who, by_pose, none_has_it, (0.0, 90.0), weights)
    assert [area is None for area in lacking.angles[0].auc_by_label] == [False] * 3 + [True]
    assert scores.shape == (2, 60)
    assert figures.angles[0].accuracy.value == pytest.approx(((answers[0] >= 0.5) == labels).mean())
    chance = {pose: random.random((60, 4)) for pose in by_pose}
    other, _ = figures_of(replace(who, name="y"), {("y", p): a for (_, p), a in chance.items()},
                          labels, (0.0, 90.0), weights)  # fmt: skip
    view = EvaluationView(
        "chestmnist", "test", 60, 60, "disc", 100, (other, figures), (), np.arange(60), labels
    )
    # Of accuracy nothing is said: a network that answers no throughout has plenty of it.
    area, gap = figures.auc_mean.value, figures.auc_mean.value - other.auc_mean.value
    assert view.headline.startswith(
        f"x ranks images by label with an area under the curve of {area:.3f}"
    )
    assert view.headline.endswith(f"{gap:.3f} before y, their intervals are apart.")
