"""docs/parity.md says what the authors' packages fail at: each line of its table is shown here."""

import copy
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from sre.gmr import GMRConv1d, GMRConv2d
from sre.layers import SREConv1d, SREConv2d
from sre.models import build_model
from sre.symmetry import equivariance_error, grid_action
from sre.transposed import SREConvTranspose2d

TABLE = (Path(__file__).resolve().parent.parent / "docs" / "parity.md").read_text(encoding="utf-8")
TURN = grid_action(quarter_turns=1)
FAULTS: dict[str, Callable[[], None]] = {}


def package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"needs the authors' packages (sre-conv, GMR-Conv and torchio): {error}")


def fault(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(check: Callable[[], None]) -> Callable[[], None]:
        FAULTS[name] = check
        return check

    return add


@pytest.mark.parametrize("name", re.findall(r"^\| ([^|]+?) \|", TABLE, re.MULTILINE)[2:])
def test_each_line_is_so(name):
    FAULTS[name]()


def test_no_line_is_missing():
    assert set(re.findall(r"^\| ([^|]+?) \|", TABLE, re.MULTILINE)[2:]) == set(FAULTS)


def image(side: int = 12, channels: int = 8) -> Tensor:
    return torch.randn(1, channels, side, side)


@fault("Layers of one dimension")
def one_dimension():
    for theirs, name in ((package("SRE_Conv"), "SRE_Conv1d"), (package("GMR_Conv"), "GMR_Conv1d")):
        with pytest.raises(IndexError):
            getattr(theirs, name)(8, 4, 5)
    for ours in (SREConv1d, GMRConv1d):
        assert ours(8, 4, 5, padding=2)(torch.randn(1, 8, 20)).shape == (1, 4, 20)


@fault("Transposed layers")
def transposed():
    for theirs, name in (("SRE_Conv", "SRE_ConvTranspose2d"), ("GMR_Conv", "GMR_ConvTranspose2d")):
        with pytest.raises((RuntimeError, TypeError, ValueError, AttributeError)):
            getattr(package(theirs), name)(8, 4, 3, stride=2, padding=1)(image())
    layer = SREConvTranspose2d(8, 4, 3, stride=2, padding=1)
    assert equivariance_error(layer, TURN, image()) < 1e-5


@fault("Even kernels")
def even_kernels():
    theirs = package("SRE_Conv").SRE_Conv2d(8, 4, 4, padding=2).train()
    kernel = theirs._make_conv_weight(theirs.weight)
    assert not torch.equal(kernel, kernel.flip(-1))
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        SREConv2d(8, 4, 4)


@fault("`load_state_dict` in eval mode")
def stale_kernel():
    x = image()
    for theirs in (
        package("SRE_Conv").SRE_Conv2d(8, 4, 5, padding=2, bias=False).eval(),
        SREConv2d(8, 4, 5, padding=2, bias=False).eval(),
    ):
        before = theirs(x)
        theirs.load_state_dict({name: 2 * value for name, value in theirs.state_dict().items()})
        assert torch.equal(theirs(x), before) == (not isinstance(theirs, SREConv2d))


@fault("`deepcopy` in eval mode")
def deep_copies():
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(package("SRE_Conv").SRE_Conv2d(8, 4, 5).eval())
    layer, x = SREConv2d(8, 4, 5).eval(), image()
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


@fault("GMR with groups")
def gmr_groups():
    with pytest.raises(RuntimeError):
        package("GMR_Conv").GMR_Conv2d(8, 4, 5, padding=2, groups=2)(image())
    assert GMRConv2d(8, 4, 5, padding=2, groups=2)(image()).shape == (1, 4, 12, 12)


@fault("GMR with `padding_mode`")
def gmr_padding():
    x = image()
    for kind in (package("GMR_Conv").GMR_Conv2d, GMRConv2d):
        zeros, circular = (kind(8, 4, 5, padding=2, padding_mode=m) for m in ("zeros", "circular"))
        circular.load_state_dict(zeros.state_dict())
        assert torch.equal(zeros(x), circular(x)) == (kind is not GMRConv2d)


@fault("GMR's `dw_fwd=False`")
def gmr_arguments():
    theirs = package("GMR_Conv").GMR_Conv2d(8, 4, 5, padding=2, dw_fwd=False)
    assert theirs.dw_fwd
    assert not theirs.clip_sigma
    assert not GMRConv2d(8, 4, 5, padding=2, dense=True).takes_band_sums(image())


@fault("Converting a network")
def conversion():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(3, 2, 1))
    weight = model[0].weight.detach().clone()
    assert package("SRE_Conv").convert_to_SRE_conv(model) is None
    assert model[0].weight.shape != weight.shape
    assert isinstance(model[1], nn.MaxPool2d)
    assert equivariance_error(model.train(), TURN, image(28, 3)) > 0.1


@fault("Sides that do not halve evenly")
def odd_sides():
    theirs = package("SRE_Conv.sre_resnet").sre_resnet18(
        num_classes=4, inplanes=4, skip_first_maxpool=True, sre_conv_size=[9, 9, 5, 5]
    )
    ours = build_model("sre_resnet18", in_channels=3, num_classes=4, width=4)
    x = image(28, 3)
    for model, is_exact in ((theirs.eval(), False), (ours.eval(), True)):
        error = (model(TURN(x)) - model(x)).abs().amax() / model(x).abs().amax()
        assert (error < 1e-4) == is_exact


@fault("The pool after the stem")
def stem_pool():
    theirs = package("SRE_Conv.sre_resnet").sre_resnet18(num_classes=4, inplanes=4)
    assert isinstance(theirs.maxpool, nn.MaxPool2d)
    x = image(32, 3)
    model = theirs.eval()
    assert (model(TURN(x)) - model(x)).abs().amax() > 1e-4 * model(x).abs().amax()
