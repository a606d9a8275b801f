import doctest

import pytest
from torch import nn
from torch.nn.utils import parametrizations

from sre import obstacles
from sre.layers import SREConv2d
from sre.obstacles import is_plain, objection
from sre.transposed import SREConvTranspose2d


class OtherConv(nn.Conv2d):
    """Computes in a way of its own."""

    def forward(self, x):
        return super().forward(x.flip(-1))


class NamedConv(nn.Conv2d):
    """Only has a name of its own."""


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.MultiheadAttention(4, 1), "attention"),
        (nn.LSTM(2, 2), "it reads in one direction"),
        (nn.PixelShuffle(2), "it lays channels out as places"),
        (nn.PixelUnshuffle(2), "it makes channels of places"),
        (nn.MaxUnpool2d(2), "where indices of the unturned map point"),
        (nn.FractionalMaxPool2d(2, 3), "drawn at random"),
        (nn.LPPool2d(2, 2), "no adaptive form"),
        (OtherConv(1, 1, 3), "a convolution of an unknown kind"),
        (SREConvTranspose2d(1, 1, 3, 2, 1, output_padding=1), "output_padding adds pixels"),
        (nn.Upsample(7), "nearest pixels lean to one side"),
        (nn.Upsample(scale_factor=1.5), "nearest pixels lean to one side"),
        (nn.AdaptiveMaxPool2d((7, 5)), "its sides differ along the axes"),
        (nn.ZeroPad2d((0, 1, 0, 1)), "it pads edges differently"),
        (nn.LayerNorm((4, 7, 7)), "its parameter weight, 4x7x7, may differ from place to place"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_modules_with_a_direction_or_a_place_are_named(module, why):
    assert why in objection(module)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(1, 1, 3), NamedConv(1, 1, 3), nn.ConvTranspose2d(1, 1, 3),
        SREConv2d(1, 2, 3), SREConvTranspose2d(1, 2, 3, 2), nn.Linear(2, 3), nn.BatchNorm2d(2),
        nn.LayerNorm(4), nn.GroupNorm(1, 2), nn.PReLU(3), nn.AdaptiveAvgPool2d((7, 7)),
        nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=2), nn.Upsample(7, mode="bilinear"),
        nn.ZeroPad2d(1), nn.ReLU(), nn.Sequential(),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_others_are_not(module):
    assert objection(module) is None


def test_a_module_is_plain_if_it_computes_as_pytorchs_own():
    assert is_plain(nn.Conv2d(1, 1, 3))
    assert is_plain(NamedConv(1, 1, 3))
    assert is_plain(parametrizations.weight_norm(nn.Conv2d(1, 1, 3)))
    assert not is_plain(OtherConv(1, 1, 3))
    assert not is_plain(SREConv2d(1, 1, 3))


def test_examples_run():
    assert doctest.testmod(obstacles).failed == 0
