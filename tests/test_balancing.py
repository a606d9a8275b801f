import pytest
import torch
from torch import nn

from sre.balancing import balance_bands, settle_bands
from sre.gmr import GMRConv2d
from sre.layers import SREConv1d, SREConv2d, SREConv3d
from sre.transposed import SREConvTranspose2d

LAYERS = [
    (SREConv1d, 5), (SREConv2d, 9), (SREConv3d, 3), (GMRConv2d, 5), (SREConvTranspose2d, 3),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "kernel_size"), LAYERS, ids=lambda x: getattr(x, "__name__", x))
def test_a_balanced_layer_computes_what_its_weights_say(kind, kernel_size):
    layer, plain = (kind(2, 2, kernel_size, padding=kernel_size // 2) for _ in range(2))
    x = torch.randn(1, 2, *(6,) * layer.dims)
    balance_bands(layer)
    named = dict(plain.state_dict()) | {"weight": layer.weight, "bias": layer.bias}
    plain.load_state_dict(named)
    torch.testing.assert_close(layer(x), plain(x))
    before = layer(x)
    settle_bands(layer)
    assert torch.equal(layer(x), before)
    assert type(layer) is kind
    assert set(layer.state_dict()) == set(plain.state_dict())
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.requires_grad


def test_a_step_of_adam_changes_all_bands_by_as_much_as_the_root_of_their_pixels():
    layer = SREConv2d(1, 1, 5, bias=False)
    balance_bands(layer)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    layer(torch.rand(1, 1, 9, 9)).sum().backward()
    optimizer.step()
    pixels = torch.tensor([1.0, 8.0, 12.0])
    torch.testing.assert_close(
        (layer.weight - before).detach()[0, 0], -0.01 / pixels.sqrt(), rtol=1e-3, atol=1e-6
    )


def test_weights_begin_smaller_where_a_band_has_more_pixels():
    torch.manual_seed(0)
    layers = [SREConv2d(64, 64, 9) for _ in range(2)]
    balance_bands(layers[1])
    ratio = layers[1].weight.std((0, 1)) / layers[0].weight.std((0, 1))
    torch.testing.assert_close(ratio, 1 / torch.tensor([1.0, 8, 12, 16, 32]), rtol=0.1, atol=0)


def test_others_are_left_alone():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Linear(2, 2))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    balance_bands(model)
    settle_bands(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
