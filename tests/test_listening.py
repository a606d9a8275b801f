import pytest
import torch
from torch import nn

from sre.listening import evaluating, listening, named_tensors


class Twice(nn.Module):
    """Calls its layer two times over; the second time by keyword."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.rest = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.rest(self.layer(input=self.layer(x)))


class Raising(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.BatchNorm1d(2)

    def forward(self, x):
        self.layer(x)
        raise RuntimeError("as asked")


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def run_heard(model: nn.Module, heard: list[str]) -> None:
    with evaluating(model), listening(model, lambda call, *_: heard.append(call)):
        model(torch.zeros(3, 2))


@pytest.mark.parametrize("entering", [False, True])
def test_every_call_of_a_layer_that_acts_is_heard(entering):
    heard, model = [], Twice()
    with listening(model, lambda call, path, *_: heard.append((call, path)), entering=entering):
        model(torch.zeros(1, 2))
    layers = [("layer", "layer"), ("layer#2", "layer"), ("rest.1", "rest.1")]
    whole = [("(output)", "")]
    assert heard == (whole + layers if entering else layers + whole)


def test_what_a_call_is_given_is_heard_before_it_is_overwritten():
    given, made, model = {}, {}, Twice()
    nn.init.constant_(model.layer.weight, -1.0)
    nn.init.zeros_(model.layer.bias)

    def keep(found: dict):
        return lambda call, path, module, values: found.update(
            {name: value.clone() for name, value in named_tensors(call, values).items()}
        )

    with listening(model, keep(given), entering=True), listening(model, keep(made)):
        model(torch.tensor([[1.0, 1.0]]))
    assert given["layer#2"].tolist() == made["layer"].tolist() == [[-2.0, -2.0]]
    assert given["rest.1"].tolist() == [[4.0, 4.0]]
    with listening(model, keep(given), entering=True), listening(model, keep(made)):
        model(torch.tensor([[-1.0, -1.0]]))
    assert given["rest.1"].tolist() == [[-4.0, -4.0]]
    assert made["rest.1"].tolist() == [[0.0, 0.0]]


def test_nothing_is_left_behind_where_the_model_raises():
    model = Raising().train()
    heard = []
    with pytest.raises(RuntimeError, match="as asked"):
        run_heard(model, heard)
    assert heard == ["layer"]
    assert hooks_of(model) == 0
    assert model.training
    assert model.layer.training
    assert torch.is_grad_enabled()
    assert model.layer.num_batches_tracked == 0


def test_each_module_gets_its_own_mode_back():
    model = Raising().train()
    model.layer.eval()  # frozen, as when a network is fine-tuned
    with evaluating(model):
        assert not model.training
        assert not torch.is_grad_enabled()
    assert model.training
    assert not model.layer.training


def test_tensors_are_found_in_what_modules_give():
    one, two = torch.zeros(1), torch.ones(1)
    whole = torch.zeros(1, dtype=torch.long)
    assert named_tensors("a", one) == {"a": one}
    assert named_tensors("a", (one, whole, None)) == {"a": one}
    assert named_tensors("a", {"x": one, "y": [two, "text"]}) == {"a[0]": one, "a[1]": two}
    assert named_tensors("a", whole) == {}
