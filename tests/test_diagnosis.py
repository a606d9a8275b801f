import pytest
import torch
from torch import nn

from sre.diagnosis import UNKNOWN, Call, guess_reason, is_symmetric
from sre.layers import SREConv2d, SREConv3d
from sre.symmetry import GRID_ACTIONS, equivariance_error
from sre.transposed import SREConvTranspose2d


class Position(nn.Module):
    """Adds a number of its own to each place."""

    def __init__(self, *shape: int, symmetric: bool = False):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(shape) if symmetric else torch.randn(shape))

    def forward(self, x):
        return x + self.place


def call(module: nn.Module, *shape: int, **changes: object) -> Call:
    """A call of the module with an exact input of that shape."""
    with torch.no_grad():
        made = module(torch.randn(shape))
    made = made[0] if isinstance(made, tuple) else made
    known = {"around": (), "before": (), "input_breaks": False}
    return Call(module, given=shape, made=tuple(made.shape), **known | changes)


PLAIN = "its ordinary 3x3 kernels are not radially symmetric"
FLAT = "flattened position: each pixel becomes a feature of its own"
CASES = [
    (nn.Conv2d(2, 3, 3), (9, 9), PLAIN),
    (nn.Conv2d(2, 3, 3, padding=1, stride=2), (28, 28),
     f"{PLAIN}; stride 2 samples side 28 off centre (sides 27 and 29 fit)"),
    (nn.Conv2d(2, 3, 3, padding=1, stride=2), (29, 29), PLAIN),
    (nn.Conv2d(2, 3, 4), (9, 9),
     "its ordinary 4x4 kernels are not radially symmetric, and an even kernel has no centre pixel"),
    (nn.Conv2d(2, 3, (3, 5)), (9, 9), "its 3x5 kernels are not the same along all axes"),
    (nn.Conv3d(2, 3, 3), (5, 5, 5), "its ordinary 3x3x3 kernels are not radially symmetric"),
    (nn.ConvTranspose2d(2, 3, 3), (5, 5), PLAIN),
    (nn.Conv2d(2, 3, 1, stride=2), (28, 28),
     "stride 2 samples side 28 off centre (sides 27 and 29 fit)"),
    (nn.Conv2d(2, 3, 1, stride=(1, 2)), (9, 9), "its stride 1x2 is not the same along all axes"),
    (SREConv2d(2, 3, 3, padding=1, stride=2), (9, 12),
     "stride 2 samples side 12 off centre (sides 11 and 13 fit)"),
    (SREConv2d(2, 3, 5, padding=(2, 1)), (9, 9), "its padding 2x1 is not the same along all axes"),
    (SREConv2d(2, 3, 5, dilation=2, stride=4), (12, 12),
     "stride 4 samples side 12 off centre (sides 9 and 13 fit)"),
    (SREConv3d(2, 3, 3, stride=3), (5, 5, 5),
     "stride 3 samples side 5 off centre (sides 3 and 6 fit)"),
    (SREConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (5, 5),
     "output_padding adds pixels on one side only"),
    (nn.MaxPool2d(3, 2, 1), (28, 28),
     "windows of 3 with stride 2 do not divide side 28 evenly (sides 27 and 29 fit)"),
    (nn.AvgPool2d(2), (7, 7),
     "windows of 2 with stride 2 do not divide side 7 evenly (sides 6 and 8 fit)"),
    (nn.AvgPool2d(2, ceil_mode=True), (7, 7),
     "windows of 2 with stride 2 do not divide side 7 evenly (sides 6 and 8 fit)"),
    (nn.LPPool2d(2, 2), (7, 7),
     "windows of 2 with stride 2 do not divide side 7 evenly (sides 6 and 8 fit)"),
    (nn.MaxPool3d(2), (7, 7, 7),
     "windows of 2 with stride 2 do not divide side 7 evenly (sides 6 and 8 fit)"),
    (nn.MaxPool2d((2, 3)), (6, 6), "its kernel 2x3 is not the same along all axes"),
    (nn.AdaptiveAvgPool2d((2, 3)), (6, 6), "it makes maps of 2x3 out of maps of 6x6"),
    (nn.ZeroPad2d((0, 1, 0, 1)), (6, 6), "padding (0, 1, 0, 1) is not the same on all sides"),
    (nn.Upsample((16, 16)), (7, 7),
     "nearest-neighbour upsampling from side 7 to 16 rounds to one side"),
    (nn.Flatten(), (4, 4), FLAT),
    (nn.Linear(4, 4), (4, 4), "it mixes the positions along the last axis"),
    (nn.PixelUnshuffle(2), (4, 4), "it trades positions for channels"),
    (nn.RNN(4, 4), (4,), "it reads positions one after the other"),
    (Position(2, 4, 4), (4, 4), "absolute position: 'place' has the map's sides 4x4"),
    (nn.Sequential(nn.ReLU()), (4, 4), "an operation in its own forward, outside the layers in it"),
    (Position(2, 4, 4, symmetric=True), (4, 4), UNKNOWN),
    (Position(2, 1, 1), (4, 4), UNKNOWN),
    (nn.ReLU(), (4, 4), UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("module", "sides", "reason"), CASES, ids=lambda value: str(value)[:40])
def test_reasons(module, sides, reason):
    assert guess_reason(call(module, 1, 2, *sides)) == reason


def test_even_kernels_cannot_keep_the_side():
    with pytest.warns(UserWarning, match="even kernel"):
        found = call(nn.Conv2d(2, 3, 4, padding="same"), 1, 2, 9, 9)
    reason = "an even kernel has no centre pixel: padding='same' adds one more on one side"
    assert guess_reason(found).endswith(f"; {reason}")


@pytest.mark.parametrize("side", range(5, 13))
@pytest.mark.parametrize(
    "layer",
    [
        SREConv2d(2, 3, 5, padding=2, stride=2),
        SREConv2d(2, 3, 3, dilation=2, stride=3, padding=1),
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, ceil_mode=True, padding=1, count_include_pad=False),
        nn.AdaptiveAvgPool2d(4),
        nn.ZeroPad2d(1),
        nn.Upsample(15),
        nn.Upsample(15, mode="bilinear"),
        SREConvTranspose2d(2, 3, 3, stride=2),
    ],
    ids=str,
)
def test_a_layer_has_a_reason_where_it_breaks_and_none_where_it_does_not(layer, side):
    x = torch.randn(1, 2, side, side)
    with torch.no_grad():
        is_exact = max(equivariance_error(layer, g, x) for g in GRID_ACTIONS) < 1e-4
    assert (guess_reason(call(layer, 1, 2, side, side)) == UNKNOWN) == is_exact


def test_what_breaks_between_two_layers():
    convolution = SREConv2d(2, 3, 3)
    broken = {"input_breaks": True, "before": (1, 2, 6, 6)}
    before = "its input is broken already, by an operation before it that is no layer"
    assert guess_reason(call(convolution, 1, 2, 6, 6, **broken)) == before

    place = "has the map's sides 6x6"
    held = (("stem", nn.Sequential()), ("", Position(1, 2, 6, 6)))
    found = guess_reason(call(convolution, 1, 2, 6, 6, **broken, around=held))
    assert found == f"absolute position: 'place' of the network {place}"
    held = (("stem", Position(6, 6)), ("", nn.Sequential()))
    found = guess_reason(call(convolution, 1, 2, 6, 6, **broken, around=held))
    assert found == f"absolute position: 'place' of stem {place}"
    held = (("", Position(2, 5, 5)),)
    assert guess_reason(call(convolution, 1, 2, 6, 6, **broken, around=held)) == before

    flat = "flattened position: each pixel has become a feature of its own"
    assert guess_reason(call(nn.Linear(72, 4), 1, 72, **broken)) == flat
    assert guess_reason(call(nn.Linear(71, 4), 1, 71, **broken)) == before


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1, 2, 1], [2, 3, 2], [1, 2, 1]], True),
        ([[1, 2, 1], [2, 3, 2], [1, 2, 1.01]], False),
        ([[1, 2, 3], [3, 2, 1], [1, 2, 3]], False),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], False),
        ([[4, 4], [4, 4]], True),
        ([[0, 0], [0, 0]], True),
        ([[1, 1, 1]], False),
    ],
)
def test_symmetry_of_kernels(rows, expected):
    assert is_symmetric(torch.tensor(rows)[None, None].float()) is expected


def test_symmetry_of_solid_kernels():
    kernel = torch.ones(1, 1, 3, 3, 3)
    assert is_symmetric(kernel)
    kernel[0, 0, 0, 1, 1] = 2
    assert not is_symmetric(kernel)
