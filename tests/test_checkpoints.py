import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sre.checkpoints import (
    CheckpointCard,
    check_writable,
    list_checkpoints,
    load_card,
    load_checkpoint,
    save_checkpoint,
)
from sre.errors import CheckpointError
from sre.models import CLASSIFIERS
from tests.networks import CARD, tiny_network, write_checkpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a sound checkpoint, to break."""
    return write_checkpoint(tmp_path)


def refuse(path: Path, message: str) -> None:
    """Expect one sentence that names the file."""
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith(".")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewrite(path: Path, change: Callable[[dict, dict], None]) -> None:
    """Change the card, as JSON has it, and the tensors of a file."""
    tensors, card = read_tensors(path), json.loads(json.dumps(asdict(load_card(path))))
    change(card, tensors)
    save_file(tensors, path, metadata={"format": "1", "card": json.dumps(card)})


# Sound ones


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_every_model_comes_back_as_it_was(name, in_channels, tmp_path):
    card = replace(CARD, model=name, in_channels=in_channels)
    model, path = tiny_network(card), tmp_path / card.file_name
    save_checkpoint(model, card, path)
    loaded, read = load_checkpoint(path)
    assert read == card
    assert type(loaded) is type(model)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(v.dtype == torch.float32 for v in loaded.state_dict().values() if v.dim())
    x = torch.randn(2, in_channels, 28, 28)
    expected = model(x)
    # Half precision has eleven bits; logits that nearly cancel out lose some of them.
    assert (loaded(x) - expected).abs().amax() < 0.01 * expected.abs().amax()
    for ours, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())


def test_pools_that_blur_come_back_and_tell_runs_apart(tmp_path):
    card = replace(CARD, blur_pools=True)
    model, path = tiny_network(card), tmp_path / card.file_name
    save_checkpoint(model, card, path)
    loaded, read = load_checkpoint(path)
    x = torch.randn(2, CARD.in_channels, 28, 28)
    expected = model(x)
    assert (loaded(x) - expected).abs().amax() < 0.01 * expected.abs().amax()
    assert read.blur_pools
    assert read.fingerprint != CARD.fingerprint


def test_saving_what_was_loaded_changes_nothing(path, tmp_path):
    loaded, card = load_checkpoint(path)
    again = tmp_path / "again.safetensors"
    save_checkpoint(loaded, card, again)
    # Not byte by byte: safetensors writes the two entries of its metadata in either order.
    assert load_card(again) == card
    before, after = read_tensors(path), read_tensors(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_are_stored_in_half_precision_and_statistics_are_not(path):
    for name, value in read_tensors(path).items():
        assert value.dtype == (torch.float32 if "running" in name else torch.float16), name


def test_a_small_variance_keeps_its_digits(tmp_path):
    model = tiny_network()
    model.stem[1].running_var.fill_(1.2345e-7)
    save_checkpoint(model, CARD, tmp_path / "x.safetensors")
    loaded, _ = load_checkpoint(tmp_path / "x.safetensors")
    assert torch.equal(loaded.stem[1].running_var, model.stem[1].running_var)


def test_saving_leaves_the_model_alone(tmp_path):
    model = tiny_network().train()
    save_checkpoint(model, CARD, tmp_path / "x.safetensors")
    assert model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_loading_touches_no_random_numbers(path):
    before = torch.get_rng_state()
    load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_saving_replaces_a_file_whole_and_others_may_read_it(path):
    loaded, card = load_checkpoint(path)
    save_checkpoint(loaded, replace(card, best_epoch=7), path)
    assert load_card(path).best_epoch == 7
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644


def test_cards_of_newer_versions_may_hold_more(path):
    def add(card, tensors):
        card["mood"] = "sunny"

    rewrite(path, add)
    assert load_checkpoint(path)[1] == load_card(path)


def test_cards_need_only_what_rebuilds_the_network(path):
    def drop(card, tensors):
        for name in ("test", "validation", "versions", "device", "seed", "epochs", "created"):
            del card[name]

    rewrite(path, drop)
    assert load_card(path).test == {}


@pytest.mark.parametrize(
    ("model", "rotates", "arm", "file_name"),
    [
        ("sre_resnet18", False, "sre", "digits-sre_resnet18-w4.safetensors"),
        ("resnet18", False, "plain", "digits-resnet18-w4.safetensors"),
        ("resnet18", True, "augmented", "digits-resnet18-rotated-w4.safetensors"),
        ("sre_resnet18", True, "sre-augmented", "digits-sre_resnet18-rotated-w4.safetensors"),
    ],
)
def test_arms_and_file_names(model, rotates, arm, file_name):
    card = replace(CARD, model=model, rotates_in_training=rotates)
    assert (card.arm, card.file_name) == (arm, file_name)


def test_a_folder_lists_its_sound_checkpoints_by_name(tmp_path):
    one = write_checkpoint(tmp_path, model="resnet18")
    other = write_checkpoint(tmp_path, dataset="cells")
    (tmp_path / "a.safetensors").write_bytes(b"junk")
    (tmp_path / "b.safetensors").mkdir()
    (tmp_path / "c.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("not one")
    assert list(list_checkpoints(tmp_path)) == [other, one]
    assert list_checkpoints(tmp_path)[one].model == "resnet18"


def test_folders_without_checkpoints_list_none(tmp_path):
    assert list_checkpoints(tmp_path) == {}
    assert list_checkpoints(tmp_path / "absent") == {}
    (tmp_path / "file").write_text("")
    assert list_checkpoints(tmp_path / "file") == {}


# Files that are not there, or damaged


def test_a_missing_file_names_those_that_are_there(path):
    gone = path.with_name("gone.safetensors")
    refuse(gone, f"gone.safetensors does not exist; checkpoints beside it: {path.name}$")
    path.unlink()
    refuse(gone, "does not exist; checkpoints beside it: none$")


def test_a_folder_is_no_file(path):
    path.unlink()
    path.mkdir()
    refuse(path, "is a folder; checkpoints beside it")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.99])
def test_truncated_files(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refuse(path, "is damaged or no checkpoint; fetch or train it again")


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(256)) * 40,
        b"\0" * 1000,
        b"\xff" * 1000,
        header(b"{}")[:-1],
        header(b"[]"),
        header(b"not json"),
        header(b'{"x": {"dtype": "F16", "shape": [4], "data_offsets": [0, 999]}}'),
        header(b'{"x": {"dtype": "F99", "shape": [1], "data_offsets": [0, 2]}}') + b"ab",
        header(b'{"x": {"dtype": "F16", "shape": [-1], "data_offsets": [0, 2]}}') + b"ab",
        struct.pack("<Q", 2**60) + b"{}",
    ],
    ids=range(10),
)
def test_bytes_that_are_no_safetensors(path, content):
    path.write_bytes(content)
    refuse(path, "is damaged or no checkpoint; fetch or train it again")


def test_a_pickle_is_not_run(path, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    path.write_bytes(pickle.dumps(Bomb()))
    refuse(path, "is damaged or no checkpoint")
    torch.save({"state": Bomb()}, path)
    refuse(path, "is damaged or no checkpoint")
    assert not (tmp_path / "run").exists()


# Files of others


def test_no_metadata_and_other_formats(path):
    tensors = read_tensors(path)
    save_file(tensors, path)
    refuse(path, "the checkpoint has format 'none', this version reads 1; train it again")
    save_file(tensors, path, metadata={"format": "2", "card": "{}"})
    refuse(path, "the checkpoint has format '2', this version reads 1; train it again")
    save_file(tensors, path, metadata={"format": "1"})
    refuse(path, "the checkpoint's card cannot be read; train it again")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"card"', "[" * 100_000, "{" * 10_000, '{"classes": 1' + "0" * 5000],
    ids=range(8),
)
def test_cards_that_are_no_json_object(path, text):
    save_file(read_tensors(path), path, metadata={"format": "1", "card": text})
    refuse(path, "the checkpoint's card cannot be read; train it again")


@pytest.mark.parametrize(
    "name", [n for n, f in CheckpointCard.__dataclass_fields__.items() if n in asdict(CARD)]
)
@pytest.mark.parametrize("value", [None, -1.5, "NaN", [[]], {"a": {}}], ids=repr)
def test_fields_of_other_types(path, name, value):
    def spoil(card, tensors):
        card[name] = value

    rewrite(path, spoil)
    held = asdict(CARD)[name]
    if isinstance(held, str) and isinstance(value, str) and name != "model":
        assert getattr(load_card(path), name) == value
    elif name == "config" and isinstance(value, dict):
        assert load_card(path).config == value
    elif isinstance(held, float) and isinstance(value, float):
        assert load_card(path).seconds == value
    else:
        refuse(path, "the checkpoint's card cannot be read; train it again")


@pytest.mark.parametrize(
    "change",
    [
        {"model": "vgg"},
        {"model": "constructor"},
        {"side_px": 23},
        {"side_px": 10**9},
        {"side_px": True},
        {"side_px": "28"},
        {"width": 4.0},
        {"width": "4"},
        {"classes": "0123456789"},
        {"classes": list(range(10))},
        {"kernel_sizes": "9955"},
        {"kernel_sizes": [9, 9, 5, True]},
        {"test": {"accuracy_at_0": float("nan")}},
        {"test": {"accuracy_at_0": float("inf")}},
        {"test": {"accuracy_at_0": "high"}},
        {"seconds": float("-inf")},
        {"is_multi_label": 0},
    ],
    ids=str,
)
def test_cards_with_values_that_cannot_be(path, change):
    rewrite(path, lambda card, tensors: card.update(change))
    refuse(path, "the checkpoint's card cannot be read; train it again")


@pytest.mark.parametrize("name", ["classes", "width", "model", "kernel_sizes", "command"])
def test_cards_that_lack_something(path, name):
    rewrite(path, lambda card, tensors: card.pop(name))
    refuse(path, "the checkpoint's card cannot be read; train it again")


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"width": 10**9},
        {"width": -4},
        {"kernel_sizes": [9, 9, 5, 4]},
        {"kernel_sizes": [9, 9, 5]},
        {"kernel_sizes": [10**9 + 1] * 4},
        {"in_channels": 0},
        {"in_channels": 10**18},
        {"in_channels": 10**30},
        {"classes": []},
        {"classes": ["one"]},
    ],
    ids=str,
)
def test_impossible_cards(path, change):
    rewrite(path, lambda card, tensors: card.update(change))
    refuse(path, "has an impossible card; train it again")


@pytest.mark.parametrize(
    ("change", "clash"),
    [
        ({"width": 8}, "head.weight"),
        ({"width": 512, "kernel_sizes": [15, 15, 15, 15]}, "head.weight"),
        ({"model": "resnet18"}, "stage1.0.conv1.weight"),
        ({"in_channels": 3}, "stem.0.weight"),
        ({"in_channels": 10**12}, "stem.0.weight"),
        ({"kernel_sizes": [3, 9, 5, 5]}, "stage1.0.conv1.weight"),
        ({"classes": ["a", "b"]}, "head.bias"),
        ({"classes": ["a"] * 10_000}, "head.bias"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_cards_of_other_networks(path, change, clash):
    rewrite(path, lambda card, tensors: card.update(change))
    model, width = change.get("model", "sre_resnet18"), change.get("width", 4)
    refuse(path, f"is no '{model}' of width {width}, see {clash}; train it again")


def test_a_small_file_takes_little_memory_whatever_it_claims(path):
    """A width of 512 would take gigabytes, as would 10**12 channels."""
    resource = pytest.importorskip("resource")
    rewrite(path, lambda card, tensors: card.update(width=512, kernel_sizes=[15] * 4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuse(path, "is no 'sre_resnet18' of width 512")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize(
    ("change", "clash"),
    [
        (lambda t: t.pop("head.weight"), "head.weight"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra"),
        (lambda t: t.update({"head.bias": torch.zeros(11)}), "head.bias"),
        (lambda t: t.update({"head.bias": torch.zeros(1, 10)}), "head.bias"),
        (lambda t: t.pop("stem.1.running_var"), "stem.1.running_var"),
        (lambda t: t.clear(), "head.bias"),
    ],
    ids=["missing", "extra", "longer", "deeper", "no statistics", "empty"],
)
def test_wrong_tensors(path, change, clash):
    rewrite(path, lambda card, tensors: change(tensors))
    refuse(path, f"is no 'sre_resnet18' of width 4, see {clash}; train it again")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["head.weight", "stage4.1.norm2.running_var"])
def test_numbers_that_are_not_finite(path, name, value):
    def spoil(card, tensors):
        tensors[name].view(-1)[0] = value

    rewrite(path, spoil)
    refuse(path, "holds numbers that are not finite; train it again")


@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.bool, torch.float64, torch.bfloat16, torch.complex64, torch.float8_e4m3fn],
    ids=str,
)
def test_numbers_of_other_kinds(path, dtype):
    def spoil(card, tensors):
        tensors["head.bias"] = tensors["head.bias"].to(dtype)

    rewrite(path, spoil)
    refuse(path, "holds other numbers than half or single precision; train it again")


def test_weights_beyond_half_precision_are_found_when_read_back(tmp_path):
    model = tiny_network()
    model.head.weight.data[0, 0] = 1e6
    save_checkpoint(model, CARD, tmp_path / "x.safetensors")
    refuse(tmp_path / "x.safetensors", "holds numbers that are not finite")


# Places where nothing can be written


def test_a_missing_folder_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "x.safetensors"
    check_writable(path)
    save_checkpoint(tiny_network(), CARD, path)
    assert load_card(path) == CARD


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / "x.safetensors"
    message = f"^cannot write {path}: File exists; free some space or choose another folder$"
    with pytest.raises(CheckpointError, match=message):
        check_writable(path)
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(tiny_network(), CARD, path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_the_place_of_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    path.mkdir()
    message = f"^cannot write {path}: .* folder"
    with pytest.raises(CheckpointError, match=message):
        check_writable(path)
    with pytest.raises(CheckpointError, match=f"^cannot write {path}: Is a directory; "):
        save_checkpoint(tiny_network(), CARD, path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o555)
    try:
        for attempt in (check_writable, lambda p: save_checkpoint(tiny_network(), CARD, p)):
            with pytest.raises(CheckpointError, match=r"^cannot write .*Permission denied"):
                attempt(tmp_path / "x.safetensors")
    finally:
        tmp_path.chmod(0o755)


def test_a_full_disk_leaves_what_was_there(path):
    resource = pytest.importorskip("resource")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(
            CheckpointError, match=f"^cannot write {path}: .*File too large.*; free"
        ):
            save_checkpoint(tiny_network(seed=1), CARD, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_save_leaves_what_was_there(path, monkeypatch):
    def interrupt(source: str, target: Path) -> None:
        raise KeyboardInterrupt

    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tiny_network(seed=1), CARD, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
