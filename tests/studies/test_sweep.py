import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from sre.__main__ import main
from sre.checkpoints import load_card, load_checkpoint, save_checkpoint
from sre.data.store import file_md5
from sre.data.table import find_dataset
from sre.errors import SettingError, SREError, TrainingError
from sre.studies import sweep_run
from sre.studies.sweep_file import read_sweep
from sre.studies.sweep_run import (
    Began,
    Done,
    Failed,
    Skipped,
    Within,
    run_sweep,
    sentence_of,
    state_of,
)
from sre.studies.train_run import EpochDone, unfinished_path
from tests.data.files import breast

ROOT = Path(__file__).resolve().parents[2]
FILE = """
seeds = [1, 2]
width = 1

[train]
batch_size = 4

[datasets.breastmnist]
epochs = 2

[[arms]]
name = "sre"
model = "sre_resnet18"
kernel_sizes = [5, 5, 3, 3]

[[arms]]
name = "plain"
title = "CNN"
model = "resnet18"

[[arms]]
name = "averaged"
averages = "plain"
turns = 4
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data folder with a BreastMNIST of twelve images."""
    made = tmp_path_factory.mktemp("data")
    np.savez(made / "breastmnist.npz", **breast())
    return made


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory) -> Path:
    """The folder of a whole sweep."""
    made = tmp_path_factory.mktemp("sweep")
    file = made / "tiny.toml"
    file.write_text(FILE)
    output = made / "output"
    settings = {"data_dir": folder, "output": output, "device": "cpu"}
    events = list(run_sweep(read_sweep(file).runs(), **settings))
    assert sum(isinstance(event, Done) for event in events) == 4
    return output


# reading


def test_runs_come_seed_by_seed_then_data_set_by_data_set_the_least_work_first(file):
    more = "[datasets.bloodmnist]\nepochs = 9\n[datasets.digits]\nepochs = 1\n"
    file.write_text(FILE.replace("[datasets.breastmnist]", more + "[datasets.breastmnist]"))
    names = [run.name for run in read_sweep(file).runs()]
    assert names[:6] == [
        "breastmnist-sre-w1-s1", "breastmnist-plain-w1-s1", "digits-sre-w1-s1",
        "digits-plain-w1-s1", "bloodmnist-sre-w1-s1", "bloodmnist-plain-w1-s1",
    ]  # fmt: skip
    assert names[6:] == [name.replace("-s1", "-s2") for name in names[:6]]


def test_a_run_has_the_settings_of_its_file(file):
    run = read_sweep(file).runs()[2]
    assert (run.dataset, run.arm, run.config.seed) == ("breastmnist", "sre", 2)
    assert (run.config.batch_size, run.config.epochs, run.config.rotate) == (4, 2, False)
    assert run.kernel_sizes == (5, 5, 3, 3)
    assert not run.blur_pools
    assert run.command == (
        "python -m sre train breastmnist sre_resnet18 --width 1 --kernel-sizes 5,5,3,3 --epochs 2 "
        "--batch-size 4 --seed 2"
    )


def test_an_arm_may_blur_its_pools(file):
    plain = read_sweep(file).runs()[2]
    file.write_text(FILE.replace("kernel_sizes", "blur_pools = true\nkernel_sizes"))
    run = read_sweep(file).runs()[2]
    assert run == replace(plain, blur_pools=True)
    assert "--kernel-sizes 5,5,3,3 --blur-pools --epochs 2" in run.command
    assert run.fingerprint("") != plain.fingerprint("")


def test_another_width_takes_the_place_of_the_files_but_not_of_an_arms_own(file):
    file.write_text(FILE.replace("kernel_sizes", "width = 3\nkernel_sizes"))
    assert {run.width for run in read_sweep(file, width=2).runs() if run.arm == "plain"} == {2}
    assert {run.width for run in read_sweep(file, width=2).runs() if run.arm == "sre"} == {3}
    with pytest.raises(SettingError, match=r"^tiny.toml: arm plain: .*width 0; give at least"):
        read_sweep(file, width=0)


def test_a_part_of_a_sweep_has_some_of_its_runs(file):
    file.write_text(FILE + "\n[datasets.digits]\nepochs = 1\n")
    sweep = read_sweep(file)
    assert sweep.part() == sweep
    names = [run.name for run in sweep.part(datasets=["digits"], seeds=[2]).runs()]
    assert names == ["digits-sre-w1-s2", "digits-plain-w1-s2"]
    with pytest.raises(SettingError, match="of its data sets, got 'cells'; choose from breastm"):
        sweep.part(datasets=["cells"])
    with pytest.raises(SettingError, match="of its seeds, got 3; choose from 1, 2"):
        sweep.part(seeds=[3])
    with pytest.raises(SettingError, match="of its seeds, none was named"):
        sweep.part(seeds=[])


def test_an_arm_may_have_a_side_of_its_own(file):
    plain = read_sweep(file).runs()[2]
    file.write_text(FILE.replace("kernel_sizes", "side_px = 42\nkernel_sizes"))
    run = read_sweep(file).runs()[2]
    assert run == replace(plain, config=replace(plain.config, side_px=42))
    assert run.command.endswith("--side-px 42 --seed 2")


def test_an_averaging_arm_is_evaluated_from_the_run_of_another(file):
    sweep = read_sweep(file)
    assert sweep.run_of("breastmnist", sweep.arm("averaged"), 2) == sweep.runs()[3]
    assert [arm.title for arm in sweep.arms] == ["sre", "CNN", "averaged"]


def test_the_sweep_of_the_project_can_be_read():
    sweep = read_sweep(ROOT / "bench" / "accuracy.toml")
    assert len(sweep.runs()) == 3 * 5 * 5
    assert sweep.configs["digits"].epochs == 25


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds", "sedes", "the file has the unknown key 'sedes'; choose from seeds, width, train"),
        ("batch_size = 4", "epoch = 4", "train has the unknown key 'epoch'; choose from epochs, b"),
        ("batch_size = 4", "seed = 4", "train has the unknown key 'seed'; choose from epochs"),
        ("batch_size = 4", "batch_size = 1.5", "train.batch_size must be a whole number, got 1.5"),
        ("batch_size = 4", "batch_size = true", "train.batch_size must be a whole number, got Tr"),
        ("batch_size = 4", "scale = '0'", "train.scale must be a number, got '0'; write one"),
        ("batch_size = 4", "scale = 1", "datasets.breastmnist: scale must be from 0 to below 1"),
        ("epochs = 2", "epochs = 0", "datasets.breastmnist: epochs must be from 1 to 10000, got 0"),
        ("breastmnist", "breastmist", "unknown data set 'breastmist'; did you mean 'breastmnist'"),
        ("breastmnist", "organmnist3d", "datasets.organmnist3d holds volumes, and the models"),
        ("[1, 2]", "[1, 1]", "seeds must differ, and one is there twice; leave it away"),
        ("[1, 2]", "[-1]", "seeds: seed must be a whole number of at least 0, got -1"),
        ("[1, 2]", "[]", "seeds must be a list, got []; write it in brackets"),
        ("[1, 2]", "1", "seeds must be a list, got 1; write it in brackets"),
        ("[1, 2]", str(list(range(9999))), "a sweep has at most 10000 runs, got 29997; make it"),
        ("width = 1", "width = 999", "arm sre: cannot build sre_resnet18 with 1 channels"),
        ("[5, 5, 3, 3]", "[4]", "arm sre: kernel sizes must be four odd numbers from 1 to 15"),
        ("kernel_sizes = [5, 5, 3, 3]", "side_px = 9", "arm sre: side_px must be from 24 to 224"),
        ("kernel_sizes = [5, 5, 3, 3]", "blur_pools = 1", "arm sre: blur_pools must be true"),
        ("[5, 5, 3, 3]", "[true]", "arm sre: kernel_sizes must be a whole number, got True"),
        ('"sre_resnet18"', '"sre_resnet81"', "arm sre: unknown model 'sre_resnet81'; did you mean"),
        ('"sre_resnet18"', '"unet"', "arm sre: unet labels pixels or takes volumes; choose from"),
        ('model = "resnet18"', "", "arm plain has no model, and needs one; write model = ..."),
        ('name = "sre"', 'name = "../sre"', "arm 1: name must be small letters and digits with"),
        ('name = "sre"', 'name = "plain"', "arm plain is there twice; give each arm a name of"),
        ('name = "sre"', "", "arm 1 has no name, and needs one; write name = ..."),
        ("turns = 4", "turns = 1", "arm averaged: turns must be from 2 to 72, got 1; try 8"),
        ("turns = 4", "rotate = true", "arm 3 has the unknown key 'rotate'; choose from name, ti"),
        ('"plain"\nturns', '"x"\nturns', "arm averaged: averages must name an arm that is trained"),
        ("seeds = [1, 2]", "arms = 3", "is no TOML file: "),
        ("width = 1", "width = ", "is no TOML file: Invalid value"),
        ("[datasets.breastmnist]\nepochs = 2", "", "a sweep needs data sets and arms; write at"),
        ("[train]\nbatch_size = 4", "train = 3", "train must be a table, got 3; write [train]"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named(file, old, new, message):
    assert old in FILE
    file.write_text(FILE.replace(old, new))
    with pytest.raises(SettingError) as caught:
        read_sweep(file)
    assert str(caught.value).startswith("tiny.toml")
    assert message in str(caught.value)


def test_arms_that_are_no_list_are_named(file):
    file.write_text("arms = 3\n[datasets.digits]\n")
    with pytest.raises(SettingError, match=r"arms must be a list of tables, got something else"):
        read_sweep(file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"cannot read .*x.toml: No such file or directory; na"):
        read_sweep(tmp_path / "x.toml")


# running


def test_a_run_foretells_the_fingerprint_of_its_card(file, folder, finished):
    md5 = file_md5(find_dataset("breastmnist"), data_dir=folder)
    for run in read_sweep(file).runs():
        card = load_card(finished / run.file_name)
        assert run.fingerprint(md5) == card.fingerprint
        assert (card.command, card.seed) == (run.command, run.config.seed)
        assert state_of(run, data_dir=folder, output=finished) == "done"


def test_what_is_done_is_skipped(file, folder, finished):
    settings = {"data_dir": folder, "output": finished, "device": "cpu"}
    events = list(run_sweep(read_sweep(file).runs(), **settings))
    assert events == [Skipped(run, is_busy=False) for run in read_sweep(file).runs()]


def test_a_checkpoint_that_was_not_evaluated_yet_is_not_done(file, folder, finished, tmp_path):
    run = read_sweep(file).runs()[0]
    model, card = load_checkpoint(finished / run.file_name)
    save_checkpoint(model, replace(card, test={}), tmp_path / run.file_name)
    assert state_of(run, data_dir=folder, output=tmp_path) == "begun"


def test_a_sweep_that_broke_off_goes_on_in_the_middle_of_a_run(file, folder, finished, tmp_path):
    runs, settings = read_sweep(file).runs()[1:3], {"data_dir": folder, "output": tmp_path / "o"}
    events = run_sweep(runs, **settings, device="cpu")
    for event in events:
        if isinstance(event, Within) and isinstance(event.event, EpochDone):
            break
    events.close()  # as Ctrl+C does
    assert [state_of(run, **settings) for run in runs] == ["begun", "to do"]
    again = list(run_sweep(runs, **settings, device="cpu"))
    assert sum(isinstance(event, Done) for event in again) == 2
    for run in runs:
        ours, theirs = (load_checkpoint(f / run.file_name)[0] for f in (tmp_path / "o", finished))
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.equal(other)


def test_a_run_that_another_process_is_at_is_left_to_it(file, folder, tmp_path):
    run = read_sweep(file).runs()[0]
    with FileLock(tmp_path / f"{run.name}.lock"):
        events = list(run_sweep([run], data_dir=folder, output=tmp_path, device="cpu"))
    assert events == [Skipped(run, is_busy=True)]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (TrainingError("the loss became nan; try less"), "the loss became nan; try less"),
        (RuntimeError("first line\nsecond line"), "RuntimeError: first line"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_one_failure_does_not_end_the_others(
    file, folder, finished, tmp_path, monkeypatch, error, sentence
):
    runs = read_sweep(file).runs()
    output = shutil.copytree(finished, tmp_path / "output")
    (output / runs[0].file_name).unlink()

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sweep_run, "run_training", fail)
    events = list(run_sweep(runs, data_dir=folder, output=output, device="cpu"))
    assert events[:2] == [Began(runs[0]), Failed(runs[0], sentence)]
    assert all(isinstance(event, Skipped) for event in events[2:])
    assert len(events) == 5
    assert sentence_of(error) == sentence


def test_another_runs_checkpoint_is_not_overwritten(file, folder, finished, tmp_path):
    first, second = read_sweep(file).runs()[:2]
    path = Path(shutil.copy(finished / second.file_name, tmp_path / first.file_name))
    before = path.read_bytes()
    assert state_of(first, data_dir=folder, output=tmp_path) == "another's"
    _, failed = run_sweep([first], data_dir=folder, output=tmp_path, device="cpu")
    assert failed.sentence == (
        f"{path.name} is the checkpoint of another run; name another file or delete it"
    )
    assert path.read_bytes() == before
    path.write_bytes(b"damaged")
    assert state_of(first, data_dir=folder, output=tmp_path) == "another's"


def test_a_data_set_that_is_not_there_is_told(file, tmp_path):
    run = read_sweep(file).runs()[0]
    events = list(run_sweep([run], data_dir=tmp_path, output=tmp_path / "o", device="cpu"))
    assert "breastmnist.npz is not there; download BreastMNIST" in events[-1].sentence


def test_an_output_that_cannot_be_written_ends_the_sweep(file, tmp_path):
    (tmp_path / "o").write_text("a file")
    runs = read_sweep(file).runs()
    with pytest.raises(SREError, match=r"cannot write .*; free some space or choose another fold"):
        list(run_sweep(runs, data_dir=tmp_path, output=tmp_path / "o", device="cpu"))


# the command


def sweep(file: Path, folder: Path, output: Path, *flags: str) -> int:
    where = ["--data-dir", str(folder), "--output", str(output)]
    return main(["sweep", str(file), *where, *flags])


def test_the_list_tells_what_is_done(file, folder, finished, tmp_path, capsys):
    output = shutil.copytree(finished, tmp_path / "output")
    runs = read_sweep(file).runs()
    (output / runs[0].file_name).unlink()
    (output / runs[1].file_name).unlink()
    mark = runs[1].fingerprint(file_md5(find_dataset("breastmnist"), data_dir=folder))
    unfinished_path(output, "breastmnist", "resnet18", mark).touch()
    assert sweep(file, folder, output, "--list") == 0
    states = ["to do", "begun", "done", "done"]
    lines = [f"{run.name}: {state}" for run, state in zip(runs, states, strict=True)]
    assert capsys.readouterr().out.splitlines() == lines


def test_the_command_does_what_is_left_and_tells_failures_at_the_end(
    file, folder, finished, tmp_path, capsys
):
    output = shutil.copytree(finished, tmp_path / "output")
    runs = read_sweep(file).runs()
    (output / runs[0].file_name).unlink()
    (output / runs[1].file_name).write_bytes(b"damaged")
    assert sweep(file, folder, output, "--no-ray", "--threads", "1") == 1
    out, err = capsys.readouterr()
    test = load_card(output / runs[0].file_name).test
    told = f"{test['accuracy_at_0']:.3f} upright, {test['accuracy_mean']:.3f} over all angles"
    assert f"{runs[0].name}: {told}" in out
    assert "1 runs done, 2 were there, 0 are with another process, 1 failed" in out
    last = err.splitlines()[-1]
    assert last.startswith(f"error: {runs[1].name}: {runs[1].file_name} is the checkpoint of ano")


def test_threads_out_of_range_are_refused(file, folder, tmp_path, capsys):
    assert sweep(file, folder, tmp_path, "--no-ray", "--threads", "999") == 2
    assert capsys.readouterr().err.startswith("error: threads must be from 0 to 256, got 999")
