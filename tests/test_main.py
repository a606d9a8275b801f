import hashlib
import json
import os
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from sre.__main__ import main, make_parser
from sre.checkpoints import load_card, load_checkpoint
from sre.commands.common import public_command
from sre.data.store import file_md5, load_split
from sre.data.table import find_dataset
from sre.evaluation import evaluate_angles, summarise
from sre.protocols import find_protocol
from sre.report import EquivarianceReport
from sre.settings import TrainConfig
from tests.data.files import breast
from tests.networks import write_checkpoint

SMALL = ["--width", "1", "--epochs", "2", "--batch-size", "4", "--kernel-sizes", "5,5,3,3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data folder with a BreastMNIST of twelve images."""
    made = tmp_path_factory.mktemp("data")
    np.savez(made / "breastmnist.npz", **breast())
    return made


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Path:
    """The checkpoint of a short run, and all that the run wrote to its folder."""
    output = tmp_path_factory.mktemp("output") / "new"
    command = ["train", "breastmnist", "resnet18", *SMALL, "--seed", "5"]
    assert main([*command, "--data-dir", str(folder), f"--output={output}"]) == 0
    (path,) = output.iterdir()
    return path


def refuse(capsys, arguments: list[str]) -> str:
    """Expect exit status 2 and one sentence on stderr, which is returned."""
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert not line.endswith(".")
    return line


# train


def test_training_writes_a_checkpoint_with_its_card(trained, folder):
    assert trained.name == "breastmnist-resnet18-w1.safetensors"
    model, card = load_checkpoint(trained)
    assert card.classes == find_dataset("breastmnist").classes
    assert (card.dataset, card.model, card.width) == ("breastmnist", "resnet18", 1)
    assert card.kernel_sizes == (5, 5, 3, 3)
    assert (card.in_channels, card.side_px, card.is_multi_label) == (1, 28, False)
    assert card.split_sizes == {"train": 5, "val": 3, "test": 4}
    assert card.dataset_md5 == file_md5(find_dataset("breastmnist"), data_dir=folder)
    assert (card.seed, card.epochs) == (5, 2)
    assert card.best_epoch in (1, 2)
    assert card.parameters == sum(p.numel() for p in model.parameters())
    assert card.multiply_adds > 10_000
    assert card.seconds > 0
    assert card.device.startswith("cpu")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", card.created)
    assert set(card.versions) == {"torch", "numpy", "safetensors", "python"}
    assert set(card.config) == {f.name for f in fields(TrainConfig)}
    assert (card.config["batch_size"], card.config["rotate"]) == (4, False)


def test_the_card_names_no_folder_of_this_machine(trained, folder):
    card = load_card(trained)
    assert card.command == "python -m sre train breastmnist resnet18 " + " ".join(
        [*SMALL, "--seed", "5"]
    )
    text = json.dumps(card.to_metadata())
    for secret in (str(folder), str(trained.parent), str(Path.home())):
        assert secret not in text


@pytest.mark.parametrize(
    ("split", "name", "angles"), [("val", "validation", 12), ("test", "test", 36)]
)
def test_the_figures_of_the_card_are_those_of_the_file(trained, folder, split, name, angles):
    model, card = load_checkpoint(trained)
    images = load_split("breastmnist", split, data_dir=folder)
    done = evaluate_angles(
        model,
        images.images,
        images.labels,
        find_protocol("disc"),
        side_px=28,
        is_multi_label=False,
        angles_deg=tuple(float(a) for a in range(0, 360, 360 // angles)),
    )
    figures = getattr(card, name)
    assert figures == pytest.approx(summarise(list(done)))
    assert figures["images"] == len(images)
    assert figures["angles"] == angles


def test_one_command_gives_one_network(trained, folder, tmp_path, capsys):
    path = tmp_path / "again.safetensors"
    command = ["train", "breastmnist", "resnet18", *SMALL, "--seed", "5", "--output", str(path)]
    assert main([*command, "--data-dir", str(folder)]) == 0
    again, first = load_checkpoint(path)[0].state_dict(), load_checkpoint(trained)[0].state_dict()
    assert all(torch.equal(value, first[name]) for name, value in again.items())
    # What a run says: a line an epoch, one for the file, and a bar.
    out, err = capsys.readouterr()
    assert len(re.findall("^epoch [12]: training loss .*, validation accuracy", out, re.M)) == 2
    assert re.search(
        r"^again\.safetensors: test accuracy \d\.\d+ upright, .*consistency", out, re.M
    )
    assert "epoch 2/2 loss" in err


def test_rotation_makes_another_file(folder, tmp_path):
    command = ["train", "breastmnist", "sre_resnet18", *SMALL, "--epochs", "1", "--rotate"]
    command.append("--blur-pools")
    assert main([*command, "--data-dir", str(folder), "--output", str(tmp_path)]) == 0
    card = load_card(tmp_path / "breastmnist-sre_resnet18-rotated-w1.safetensors")
    assert card.kernel_sizes == (5, 5, 3, 3)
    assert card.arm == "sre-augmented"
    assert card.config["rotate"] is True
    assert card.blur_pools


def test_every_setting_has_a_flag_and_its_default():
    args = make_parser().parse_args(["train", "digits", "resnet18"])
    for field in fields(TrainConfig):
        assert getattr(args, field.name) == field.default
        value = "paper" if field.name == "protocol" else "1"
        flag = [
            f"--{field.name.replace('_', '-')}",
            *([] if type(field.default) is bool else [value]),
        ]
        changed = make_parser().parse_args(["train", "digits", "resnet18", *flag])
        assert type(getattr(changed, field.name)) is type(field.default)
    assert args.kernel_sizes == (9, 9, 5, 5)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["train", "digits", "resnet18"], "train digits resnet18"),
        (["train", "--data-dir", "/secret", "digits", "x"], "train digits x"),
        (["train", "--data-dir=/secret", "digits", "x", "--output", "/s 2"], "train digits x"),
        (["train", "digits", "x", "--output=/secret", "--seed", "3"], "train digits x --seed 3"),
        (["train", "odd name", "x"], "train 'odd name' x"),
    ],
)
def test_commands_without_their_folders(given, kept):
    assert public_command(given) == f"python -m sre {kept}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "argument COMMAND: invalid choice: 'fly'"),
        (["train"], "the following arguments are required: DATASET, MODEL"),
        (["train", "digit", "resnet18"], "unknown data set 'digit'; did you mean 'digits'?"),
        (["train", "digits", "resnt18"], "unknown model 'resnt18'; did you mean 'resnet18'?"),
        (["train", "digits", "resnet18", "--kernel-sizes", "9,x"],
         "argument --kernel-sizes: must be odd numbers with commas between, got '9,x'; try 9,"),
        (["train", "digits", "resnet18", "--kernel-sizes", "9,8,5,5"],
         "kernel sizes must be four odd numbers from 1 to 15, got 9,8,5,5; try 9,9,5,5"),
        (["train", "digits", "resnet18", "--epochs", "many"],
         "argument --epochs: invalid int value: 'many'"),
        (["train", "digits", "resnet18", "--epochs", "0"], "epochs must be from 1 to 10000, got 0"),
        (["train", "digits", "resnet18", "--learning-rate", "nan"], "learning_rate must be above"),
        (["train", "digits", "resnet18", "--seed", "-1"], "seed must be a whole number of"),
        (["train", "digits", "resnet18", "--width", "0"], "cannot build resnet18 with 1 channels"),
        (["train", "digits", "resnet18", "--protocol", "disk"], "unknown protocol 'disk'; did you"),
        (["train", "digits", "resnet18", "--threads", "-1"],
         "threads must be from 0 to 256, got -1; 0 takes all cores"),
        (["train", "digits", "resnet18", "--threads", "1000000"], "threads must be from 0 to 256"),
        (["train", "digits", "resnet18", "--device", "gpu"],
         "device 'gpu' is not on this machine; use --device cpu"),
        (["train", "digits", "resnet18", "--device", ""], "device '' is not on this machine"),
        (["train", "digits", "resnet18", "--device", "meta"], "device 'meta' is not on this"),
        (["train", "digits", "resnet18", "--device", "cuda:99"], "device 'cuda:99' is not on"),
        (["train", "nodulemnist3d", "resnet18"], "NoduleMNIST3D holds volumes, and the models"),
        # An abbreviated flag would bring a folder into the card.
        (["train", "digits", "resnet18", "--out", "/secret"], "unrecognized arguments: --out"),
        (["download"], "the following arguments are required: DATASET"),
        (["download", "digits"], "Handwritten digits is built in and has no file"),
        (["download", "breastmnist", "--size", "29"], "BreastMNIST has no size of 29 px"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_work_is_one_sentence(capsys, arguments, message):
    assert f"error: {message}" in refuse(capsys, arguments)


def test_data_that_is_not_there(capsys, tmp_path):
    command = ["train", "breastmnist", "resnet18", "--data-dir"]
    for where in (tmp_path, tmp_path / "absent"):
        line = refuse(capsys, [*command, str(where)])
        assert f"{where / 'breastmnist.npz'} is not there; download BreastMNIST" in line
    (tmp_path / "breastmnist.npz").write_bytes(b"junk")
    assert "is truncated, damaged or no .npz" in refuse(capsys, [*command, str(tmp_path)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_no_cuda_here(capsys):
    line = refuse(capsys, ["train", "digits", "resnet18", "--device", "cuda"])
    assert line == "error: device 'cuda' is not on this machine; use --device cpu"


def test_an_output_that_cannot_be_written_is_found_before_training(capsys, folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    # Thousands of epochs: this returns, as it never begins.
    command = ["train", "breastmnist", "resnet18", "--width", "1", "--epochs", "9999"]
    command += ["--data-dir", str(folder), "--output"]
    for output in (tmp_path / "file", tmp_path / "file" / "x.safetensors"):
        line = refuse(capsys, [*command, str(output)])
        assert "cannot write" in line
        assert "File exists; free some space or choose another folder" in line


def test_an_interrupted_run_says_so(capsys, monkeypatch, folder, tmp_path):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sre.studies.train_run.save_checkpoint", interrupt)
    command = ["train", "breastmnist", "resnet18", *SMALL, "--data-dir", str(folder)]
    assert main([*command, "--output", str(tmp_path)]) == 130
    assert capsys.readouterr().err.endswith("goes on when the command is given again\n")
    [kept] = tmp_path.iterdir()
    assert kept.suffix == ".unfinished"
    monkeypatch.undo()
    assert main([*command, "--output", str(tmp_path)]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["breastmnist-resnet18-w1.safetensors"]


def test_who_reads_no_further_is_left_in_peace(monkeypatch, capsys, tmp_path):
    read, write = os.pipe()
    os.close(read)  # as head does when it has its lines
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert main(["checkpoints", "--folder", str(tmp_path)]) == 141
    assert capsys.readouterr().err == ""


# checkpoints


def test_checkpoints_are_listed_with_their_figures(capsys, tmp_path):
    write_checkpoint(tmp_path, test={"accuracy_at_0": 0.91234, "accuracy_mean": 0.5})
    write_checkpoint(tmp_path, model="resnet18", test={"accuracy_at_0": None})
    (tmp_path / "broken.safetensors").write_bytes(b"")
    assert main(["checkpoints", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"digits-resnet18-w4.safetensors: \d+ parameters, test unknown, turned unknown", lines[0]
    )
    assert lines[1].endswith("test 0.912, turned 0.500")
    assert len(lines) == 2


def test_no_checkpoints_are_said_to_be_none(capsys, tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        assert main(["checkpoints", "--folder", str(folder)]) == 0
        line = f"no checkpoints in {folder}; python -m sre train makes one\n"
        assert capsys.readouterr().out == line


def test_the_index_tells_what_the_files_are(tmp_path, capsys):
    path = write_checkpoint(tmp_path)
    assert main(["checkpoints", "--index", "--folder", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "index.json").read_text())
    assert row["file"] == path.name
    assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert row["command"] == load_card(path).command
    assert row["test"] == load_card(path).test
    (tmp_path / "index.json").unlink()
    (tmp_path / "index.json").mkdir()
    capsys.readouterr()
    assert main(["checkpoints", "--index", "--folder", str(tmp_path)]) == 2
    assert re.search("^error: cannot write .*: Is a directory; choose", capsys.readouterr().err)


# check


def test_a_radial_network_is_checked_and_found_exact(capsys):
    command = ["check", "sre_resnet18", "--side", "9", "--angles=-30,60.5"]
    assert main([*command, "--strict"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    head, *rows = out.partition("\n\n")[0].splitlines()
    assert " ".join(head.split()) == "layer type output turns mirror -30° floor 60.5° floor"
    assert rows[0].split()[:3] == ["stem.0", "SREConv2d", "16x9x9"]
    assert rows[-1].split()[:3] == ["(output)", "ResNet", "10"]
    assert max(map(len, rows)) <= 80
    assert "floor: of turning the map there and back alone" in out
    assert re.search(r"\nExact: at 9x9 every output turns .*, to \de-07 \(outputs: 54\)\.\n$", out)
    main(command)
    assert capsys.readouterr().out == out


def test_an_ordinary_network_is_found_to_break(capsys):
    command = ["check", "resnet18", "--side", "9", "--angles", "30", "--channels", "1"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert re.search(r"^> stem\.0 +Conv2d +16x9x9 ", out, re.M)
    assert out.splitlines()[-1].startswith(
        "Not exact: at 9x9 stem.0 (Conv2d) is the first to break"
    )
    assert main([*command, "--strict"]) == 1


def test_a_checkpoint_is_checked_as_it_is(capsys, tmp_path):
    path = write_checkpoint(tmp_path, side_px=24)
    assert main(["check", str(path), "--angles", "30", "--strict"]) == 0
    assert "Exact: at 24x24 every output" in capsys.readouterr().out
    assert main(["check", str(path), "--angles", "30", "--side", "9"]) == 0
    assert "Exact: at 9x9 every output" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (["resnet18"], (3, 28, 28)),
        (["sre_unet", "--channels", "64"], (64, 28, 28)),
        (["gmr_unet_3d", "--channels", "1"], (1, 24, 24, 24)),
        (["r3d_18", "--side", "64"], (3, 64, 64, 64)),
        (["resnet18", "--side", "256"], (3, 256, 256)),
        (["sre_resnet50", "--side", "8"], (3, 8, 8)),
    ],
    ids=str,
)
def test_what_networks_are_checked_with(monkeypatch, capsys, arguments, shape):
    def check(model, x, *, angles_deg):
        assert x.shape[1:] == shape
        assert angles_deg == (30.0, 45.0)
        return EquivarianceReport((), angles_deg, tuple(x.shape), 1e-4)

    monkeypatch.setattr("sre.commands.check.check_equivariance", check)
    assert main(["check", *arguments]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: MODEL_OR_CHECKPOINT"),
        (["sre_resnt18"], "unknown model 'sre_resnt18'; did you mean 'sre_resnet18'?"),
        (["vgg"], "unknown model 'vgg'; choose from sre_resnet18, resnet18"),
        ([""], "unknown model ''; choose from"),
        (["absent.safetensors"], "absent.safetensors does not exist; checkpoints beside it: none"),
        (["nets/resnet18"], "nets/resnet18 does not exist; checkpoints beside it"),
        (["resnet18", "--side", "7"], "side must be from 8 to 256, got 7; try 28"),
        (["resnet18", "--side", "257"], "side must be from 8 to 256, got 257; try 28"),
        (["r3d_18", "--side", "65"], "side must be from 8 to 64, got 65; try 24"),
        (["resnet18", "--side", "28.5"], "argument --side: invalid int value: '28.5'"),
        (["resnet18", "--channels", "0"], "channels must be from 1 to 64, got 0; try 3"),
        (["resnet18", "--channels", "65"], "channels must be from 1 to 64, got 65; try 3"),
        (["resnet18", "--angles", "30,x"],
         "argument --angles: must be 1 to 6 numbers with commas between, got '30,x'; try 30,45"),
        (["resnet18", "--angles", ""], "argument --angles: must be 1 to 6 numbers with commas"),
        (["resnet18", "--angles", "nan"], "argument --angles: must be 1 to 6 numbers with commas"),
        (["resnet18", "--angles", "1,2,3,4,5,6,7"], "argument --angles: must be 1 to 6 numbers"),
        (["resnet18", "--strict=yes"], "argument --strict: ignored explicit argument 'yes'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_checked_is_one_sentence(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert f"error: {message}" in refuse(capsys, ["check", *arguments])


def test_a_checkpoint_has_the_channels_that_it_has(capsys, tmp_path):
    path = write_checkpoint(tmp_path)
    line = refuse(capsys, ["check", str(path), "--channels", "3"])
    assert line == f"error: {path.name} takes 1 channels, got 3; leave --channels away"
    path.write_bytes(b"junk")
    assert "is damaged or no checkpoint" in refuse(capsys, ["check", str(path)])


# evaluate


@pytest.fixture
def digits(tmp_path) -> list[str]:
    """Arguments that compare two tiny networks."""
    plain = write_checkpoint(tmp_path, model="resnet18", seed=1)
    paths = [str(path) for path in (write_checkpoint(tmp_path), plain)]
    return [
        "evaluate", "digits", *paths, "--step-deg", "90", "--resamples", "100",
        "--keep-dir", str(tmp_path / "keep"),
    ]  # fmt: skip


def test_evaluating_prints_figures_with_intervals_and_writes_them(digits, tmp_path, capsys):
    assert main([*digits, "--output", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("400 test images of digits, protocol disc\n")
    assert re.search(r"mean over 4 angles \d+\.\d \(\d+\.\d to \d+\.\d\), standard deviation", out)
    assert re.search(r" less .*: upright .*, p = .*; mean .*, p = ", out)
    found = json.loads((tmp_path / "found.json").read_text())
    assert [angle["angle_deg"] for angle in found["models"][0]["angles"]] == [0, 90, 180, 270]
    assert len(list((tmp_path / "keep").glob("*.npy"))) == 2 * (4 + 2)
    csv = ["--output", str(tmp_path / "found.csv"), "--average-rotations", "4"]
    assert main([*digits, *csv]) == 0
    assert ", mean of 4 rotations: " in capsys.readouterr().out
    assert (tmp_path / "found.csv").read_text().startswith("network,angle_deg,figure,value,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step-deg", "0"], "step-deg must be from 1 to 360, got 0; try 10"),
        (["--output", "found.xlsx"], "found.xlsx must end in .json or .csv; name it so"),
        (["--output", "none/found.csv"], "cannot write none/found.csv; choose a folder that is th"),
        (["--protocol", "disk"], "unknown protocol 'disk'; did you mean 'disc'?"),
        (["--split", "all"], "the split must be val or test, got 'all'"),
        (["--device", "gpu"], "device 'gpu' is not on this machine; use --device cpu"),
    ],
    ids=str,
)
def test_evaluations_that_cannot_be_are_refused(digits, capsys, arguments, message):
    assert refuse(capsys, [*digits, *arguments]).startswith(f"error: {message}")


def test_evaluating_a_set_without_checkpoints_says_so(capsys):
    line = refuse(capsys, ["evaluate", "octmnist", "--step-deg", "90"])
    assert line == "error: no checkpoint of octmnist was given or found; train one first"
