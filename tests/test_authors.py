"""Files of the authors' packages, written by these packages, against their own logits."""

import importlib
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sre.authors import load_authors_checkpoint
from sre.errors import CheckpointError
from sre.gmr import GMRConv2d
from sre.layers import SREConv2d
from sre.symmetry import GRID_ACTIONS, VOLUME_ACTIONS

KERNELS = {"sre": "sre_conv_size", "gmr": "gmr_conv_size"}
FLAT = [f"{family}_resnet{depth}" for family in KERNELS for depth in (18, 34, 50)]


def authors(module: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"needs the authors' packages (sre-conv, GMR-Conv and torchio): {error}")


def as_trained(model: nn.Module) -> nn.Module:
    """Give batch-norms statistics and rings widths, as training does."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if hasattr(module, "log_sigmas"):
            nn.init.normal_(module.log_sigmas, std=0.5)
    return model.eval()


def their_resnet(name: str, **settings) -> nn.Module:
    family = name.partition("_")[0]
    package = authors({"sre": "SRE_Conv.sre_resnet", "gmr": "GMR_Conv.gmr_resnet"}[family])
    settings = {
        "num_classes": 5, "inplanes": 8, "skip_first_maxpool": True,
        KERNELS[family]: [9, 7, 5, 3], **settings,
    }  # fmt: skip
    return as_trained(getattr(package, name)(**settings))


@pytest.mark.parametrize("name", FLAT)
def test_logits_agree(tmp_path, name):
    theirs = their_resnet(name)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours, x = load_authors_checkpoint(tmp_path / "theirs.pth"), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected, got = theirs(x), ours(x)
        turned = torch.cat([ours(action(x)) for action in GRID_ACTIONS])
    assert not ours.training
    assert expected.std() > 1e-3
    assert (got - expected).abs().amax() < 1e-4 * expected.abs().amax()
    assert (turned - got.repeat(8, 1)).abs().amax() < 1e-4 * got.abs().amax()


@pytest.mark.parametrize("name", ["sre_r3d_18", "gmr_r3d_18"])
def test_logits_of_volumes_agree(tmp_path, name):
    family = name.partition("_")[0]
    package = authors({"sre": "SRE_Conv.sre_resnet_3d", "gmr": "GMR_Conv.gmr_resnet_3d"}[family])
    theirs = as_trained(
        getattr(package, name)(num_classes=4, in_channels=1, **{KERNELS[family]: [5, 5, 3, 3]})
    )
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3}, tmp_path / "theirs.pth")
    ours, x = load_authors_checkpoint(tmp_path / "theirs.pth"), torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        expected, got = theirs(x), ours(x)
        turned = ours(VOLUME_ACTIONS[9](x))
    assert (got - expected).abs().amax() < 1e-4 * expected.abs().amax()
    assert (turned - got).abs().amax() < 1e-4 * got.abs().amax()


def test_the_pool_after_the_stem_is_asked_for(tmp_path):
    theirs, x = their_resnet("gmr_resnet18", skip_first_maxpool=False), torch.randn(2, 3, 32, 32)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    pooled = load_authors_checkpoint(tmp_path / "theirs.pth", pools_stem=True)
    plain = load_authors_checkpoint(tmp_path / "theirs.pth")
    with torch.no_grad():
        expected = theirs(x)
        assert (pooled(x) - expected).abs().amax() < 1e-4 * expected.abs().amax()
        assert (plain(x) - expected).abs().amax() > 1e-2 * expected.abs().amax()


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (lambda state: {"model": state, "epoch": 1}, "theirs.pt"),
        (lambda state: {f"module.{key}": value for key, value in state.items()}, "theirs.pth"),
        (lambda state: {k: v for k, v in state.items() if "index_mat" not in k}, "theirs.pth"),
    ],
    ids=["nested", "parallel", "without masks"],
)
def test_other_ways_of_saving(tmp_path, wrap, name):
    theirs, x = their_resnet("sre_resnet18"), torch.randn(1, 3, 32, 32)
    torch.save(wrap(theirs.state_dict()), tmp_path / name)
    with torch.no_grad():
        torch.testing.assert_close(
            load_authors_checkpoint(tmp_path / name)(x), theirs(x), rtol=1e-4, atol=1e-4
        )


def test_safetensors_are_read_too(tmp_path):
    theirs = their_resnet("gmr_resnet18")
    state = {name: value.clone().contiguous() for name, value in theirs.state_dict().items()}
    save_file(state, tmp_path / "theirs.safetensors")
    ours = load_authors_checkpoint(tmp_path / "theirs.safetensors")
    assert isinstance(ours.stage1[0].conv1, GMRConv2d)
    assert not isinstance(ours.stage1[0].conv1, SREConv2d)


# What is refused


def test_trained_masks_are_refused(tmp_path):
    state = their_resnet("gmr_resnet18").state_dict()
    name = "layer2.0.conv2.weight_index_mat"
    state[name] = state[name] + 0.05 * torch.randn_like(state[name])
    torch.save(state, tmp_path / "old.pth")
    with pytest.raises(CheckpointError, match=r"^old.pth has trained masks in layer2.0.conv2, as"):
        load_authors_checkpoint(tmp_path / "old.pth")


def test_other_numbers_of_bands_are_refused(tmp_path):
    state = their_resnet("sre_resnet18").state_dict()
    name = "layer1.0.conv2.weight_index_mat"
    state[name] = state[name][..., :25].clone()
    torch.save(state, tmp_path / "few.pth")
    with pytest.raises(CheckpointError, match=r"^few.pth has bands in layer1.0.conv2 that no kern"):
        load_authors_checkpoint(tmp_path / "few.pth")


class Stranger:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_pickled_code_does_not_run(tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Stranger(), protocol=2))
    torch.save({"model": Stranger()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(CheckpointError, match=rf"^{name} holds more than weights, and loading"):
            load_authors_checkpoint(tmp_path / name)
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), r"holds no state dict; save model.state_dict\(\)$"),
        ({"a": torch.zeros(3)}, r"holds no ResNet of sre-conv or GMR-Conv; give the state dict"),
        ({"conv1.weight": torch.zeros(8, 3, 3), "fc.weight": torch.zeros(2, 64)}, r"does not fit"),
    ],
    ids=["no state", "no network", "no stages"],
)
def test_other_contents_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"^other.pth {message}"):
        load_authors_checkpoint(tmp_path / "other.pth")


def test_a_network_with_more_in_it_is_refused(tmp_path):
    state = their_resnet("sre_resnet18").state_dict() | {"extra.weight": torch.zeros(3)}
    torch.save(state, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match=r"^more.pth is no plain ResNet of theirs, see extra"):
        load_authors_checkpoint(tmp_path / "more.pth")


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_damaged_and_missing_files_are_named(tmp_path, name):
    with pytest.raises(CheckpointError, match=rf"{name} does not exist; give the file of a train"):
        load_authors_checkpoint(tmp_path / name)
    for content in (b"", b"not a checkpoint at all", bytes(100)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"^{name} (is damaged|holds more)"):
            load_authors_checkpoint(tmp_path / name)


def test_a_truncated_file_is_named(tmp_path):
    torch.save(their_resnet("sre_resnet18").state_dict(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"^half.pth is damaged or no file of torch.save"):
        load_authors_checkpoint(tmp_path / "half.pth")
