import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from sre.checkpoints import load_card, load_checkpoint
from sre.errors import SettingError
from sre.models import build_model
from sre.processes import ALONE, Processes, check_share, leave, share_norms
from sre.settings import TrainConfig
from sre.studies.train_run import run_training
from tests.data.files import breast

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ["-m", "sre", "train", "breastmnist", "sre_resnet18", "--width", "2", "--epochs", "2",
         "--batch-size", "4"]  # fmt: skip


@pytest.fixture
def group(tmp_path):
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/g", rank=0, world_size=1)
    yield
    leave()
    assert not dist.is_initialized()


def test_shares_are_the_batch_cut_up():
    batch = torch.arange(7)
    parts = [Processes(rank, 3).share_of(batch) for rank in range(3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert torch.cat(parts).equal(batch)
    assert ALONE.share_of(batch).equal(batch)


def test_alone_nothing_is_sent():
    model = nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    before = model.weight.grad.clone()
    ALONE.sum_gradients(model)
    assert model.weight.grad.equal(before)
    assert ALONE.is_main
    assert not Processes(1, 2).is_main


def test_gradients_are_added_up(group):
    model = nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    Processes(0, 2).sum_gradients(model)  # of a group of one
    assert all(p.grad.equal(b) for p, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5, 5), (2, 3, 4, 4, 4)])
def test_a_shared_batch_norm_is_one_of_pytorchs(group, shape):
    kinds = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    x, upstream = torch.randn(shape) + 3, torch.randn(shape)
    found = []
    for is_shared in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(kinds[len(shape)](3))
        nn.init.uniform_(model[0].weight)
        if is_shared:
            share_norms(model)
            assert isinstance(model[0], kinds[len(shape)])
        given = x.clone().requires_grad_()
        y = model(given)
        (y * upstream).sum().backward()
        state = {n: v.float() for n, v in model.state_dict().items()}
        found.append([y, given.grad, model[0].weight.grad, *state.values(), model.eval()(x)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_names_and_parameters_stay():
    model = build_model("sre_resnet18", in_channels=1, num_classes=2, width=1)
    before, parameters = list(model.state_dict()), list(model.parameters())
    share_norms(model)
    assert list(model.state_dict()) == before
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert sum("Shared" in type(module).__name__ for module in model.modules()) > 10
    model.eval().fused()


def test_a_batch_is_not_smaller_than_the_number_of_processes():
    check_share(2, Processes(0, 2))
    with pytest.raises(SettingError, match=r"batches of 2 images cannot be shared by 3 processes"):
        check_share(2, Processes(0, 3))


def test_a_process_that_fails_says_which_it_is():
    said = str(Processes(1, 2).failure(RuntimeError("out of memory\nat length")))
    assert said == (
        "process 2 of 2 failed (out of memory); start the run again, which goes on from the epoch "
        "before, or choose a smaller batch"
    )


def test_a_budget_of_time_is_for_one_process(tmp_path):
    events = run_training(
        "digits", "resnet18", config=TrainConfig(), width=1, data_dir=tmp_path, output=tmp_path,
        device="cpu", command="", budget_s=60, processes=Processes(0, 2),
    )  # fmt: skip
    with pytest.raises(SettingError, match=r"a budget of time is for one process, as several"):
        next(events)


def test_without_accelerate_it_says_so():
    code = "import sys; sys.modules['accelerate'] = None; from sre.__main__ import main; "
    code += "raise SystemExit(main(['train', 'digits', 'resnet18']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"WORLD_SIZE": "2"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "error: training on several processes needs accelerate, which is not installed; run pip "
        "install 'sre-lab[distributed]'\n"
    )


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    np.savez(tmp_path / "breastmnist.npz", **breast())
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0"]  # any that is free
    losses, files = [], []
    for name, starter in (("one", []), ("two", launch)):
        output = tmp_path / name
        folders = ["--data-dir", str(tmp_path), "--output", str(output)]
        done = subprocess.run(
            [sys.executable, *starter, *TRAIN, *folders], cwd=ROOT, capture_output=True, text=True,
            check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        losses.append(
            [float(x) for x in re.findall(r"(?:training|turned,) loss (\d\.\d+)", done.stdout)]
        )
        files.append(*output.iterdir())
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)
    assert load_card(files[1]).device == "2 x cpu, 1 threads"
    one, two = (load_checkpoint(file)[0].state_dict() for file in files)
    for name in one:
        # Half precision; and where a gradient is nearly 0, rounding decides its sign.
        assert (one[name] - two[name]).abs().float().mean() < 2e-3, name
