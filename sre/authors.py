"""Networks trained with the authors' packages, sre-conv and GMR-Conv, as networks of ours."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sre.errors import CheckpointError
from sre.gmr import GMRConv2d, GMRConv3d
from sre.layers import SREConv2d, SREConv3d, band_masks
from sre.resnet import BasicBlock, Bottleneck, Convolution, ResNet

# Where training scripts put the weights, if not at the top.
_NESTED = ("state_dict", "model_state_dict", "model", "net", "network")
# Constants that their layers save with the weights; ours make them anew.
_CONSTANTS = ("weight_index_mat", "default_weight_index_mat", "mus", "num_batches_tracked")
# Theirs put the pool of a stage into the sequence of its convolution, which shifts the numbers.
_RENAMED_2D = (
    (r"^conv1\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    (r"\.bn(\d)\.", r".norm\1."),
    (r"\.conv(\d)\.1\.", r".conv\1."),
)
_RENAMED_3D = (
    (r"\.conv1\.1\.", ".conv1."),
    (r"\.conv1\.2\.", ".norm1."),
    (r"\.conv2\.0\.", ".conv2."),
    (r"\.conv2\.1\.", ".norm2."),
)
_RENAMED = (
    (r"^layer", "stage"),
    (r"\.downsample\.1\.", ".shortcut.0."),
    (r"\.downsample\.2\.", ".shortcut.1."),
    (r"^fc\.", "head."),
    (r"log_sigmas$", "log_sigma"),
)


def load_authors_checkpoint(path: str | Path, *, pools_stem: bool = False) -> ResNet:
    """Rebuild a network of ``sre-conv`` or ``GMR-Conv`` from its file: on the CPU, in eval mode.

    Knows their ResNets of 18, 34 and 50 layers and their R3D-18, of any width and kernel sizes, in
    a file of ``torch.save`` or of safetensors, with or without an optimiser beside the weights.
    The logits are theirs wherever their pools lose no row, which is where the side is a multiple
    of 8; at other sides ours stay exact under quarter turns, and theirs do not.

    Args: pools_stem: for GMR networks made with ``skip_first_maxpool=False``, which the file does
        not tell. The max-pool that ``sre-conv`` puts there is not equivariant, and is not rebuilt
    Raises: CheckpointError: what is wrong with the file, and the cure; also for a GMR network
        whose masks were trained, before the release of February 2026, and are no longer symmetric
    Reference: https://arxiv.org/abs/2501.09753 and https://arxiv.org/abs/2504.02819, released code

    >>> model = load_authors_checkpoint("theirs.pth")
    Traceback (most recent call last):
    sre.errors.CheckpointError: theirs.pth does not exist; give the file of a trained network
    """
    path = Path(path)
    state = _read(path)
    is_solid = "stem.0.weight" in state
    stem, head = state.get("stem.0.weight" if is_solid else "conv1.weight"), state.get("fc.weight")
    if stem is None or head is None or stem.dim() != 3 or head.dim() != 2:
        raise CheckpointError(
            f"{path.name} holds no ResNet of sre-conv or GMR-Conv; give the state dict of one"
        )
    is_gmr = any(name.endswith("log_sigmas") for name in state)
    dims = 3 if is_solid else 2
    _check_masks(path, state, dims)
    blocks = tuple(_count_blocks(state, stage) for stage in range(1, 5))
    has_bottlenecks = any(name.startswith("layer1.0.conv3.") for name in state)
    ours = _renamed(state, _RENAMED_3D if is_solid else _RENAMED_2D)
    kernel = "stage{}.0.conv2.weight".format
    try:
        model = ResNet(
            _convolution(is_gmr, dims),
            in_channels=stem.shape[1],
            num_classes=len(head),
            block=Bottleneck if has_bottlenecks else BasicBlock,
            blocks=blocks,
            width=len(stem),
            kernel_sizes=[2 * ours[kernel(stage)].shape[-1] - 1 for stage in range(1, 5)],
            stem_kernel_size=2 * stem.shape[-1] - 1,
            dims=dims,
            pools_stem=pools_stem,
        )
        missing, unknown = model.load_state_dict(ours, strict=False)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{path.name} does not fit the ResNet that it seems to hold ({_line(error)}); "
            "give a ResNet of 18, 34 or 50 layers, or an R3D-18"
        ) from error
    wrong = [n for n in missing if not n.endswith("num_batches_tracked")] + unknown
    if wrong:
        raise CheckpointError(
            f"{path.name} is no plain ResNet of theirs, see {', '.join(sorted(wrong)[:3])}; "
            "give a ResNet of 18, 34 or 50 layers, or an R3D-18"
        )
    return model.eval()


def _convolution(is_gmr: bool, dims: int) -> Convolution:
    flat, solid = (GMRConv2d, GMRConv3d) if is_gmr else (SREConv2d, SREConv3d)
    return flat if dims == 2 else solid


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give the file of a trained network")
    loaded: object
    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} holds more than weights, and loading it could run a stranger's code; "
            "save model.state_dict() alone"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path.name} is damaged or no file of torch.save or safetensors ({_line(error)}); "
            "fetch it again"
        ) from error
    for name in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path.name} holds no state dict; save model.state_dict()")
    return {
        str(name).removeprefix("module."): value  # as nn.DataParallel names things
        for name, value in loaded.items()
        if isinstance(value, Tensor)
    }


def _check_masks(path: Path, state: Mapping[str, Tensor], dims: int) -> None:
    for name, given in state.items():
        layer, _, kind = name.rpartition(".")
        if kind != "weight_index_mat":
            continue
        bands = state[f"{layer}.weight"].shape[-1]
        side = 2 * bands - 1
        wanted = band_masks(side, dims=dims)
        if layer == "stem.0" and given.shape[-1] == 3 * 7 * 7:
            inner = given.reshape(-1, 3, 7, 7)[:, :, 2:5, 2:5]
            is_inner = float(inner.abs().sum()) == float(given.abs().sum())
            given = inner if is_inner else given
        if given.numel() != wanted.numel():
            raise CheckpointError(
                f"{path.name} has bands in {layer} that no kernel of {side} px has; only networks "
                "with the default number of bands can be read"
            )
        if not torch.equal(given.reshape(wanted.shape).to(wanted), wanted):
            raise CheckpointError(
                f"{path.name} has trained masks in {layer}, as GMR-Conv made them before February "
                "2026, so that its kernels are no longer symmetric; train it again with a newer one"
            )


def _count_blocks(state: Mapping[str, Tensor], stage: int) -> int:
    numbers = [re.match(rf"layer{stage}\.(\d+)\.", name) for name in state]
    return 1 + max((int(found[1]) for found in numbers if found), default=-1)


def _renamed(
    state: Mapping[str, Tensor], special: tuple[tuple[str, str], ...]
) -> dict[str, Tensor]:
    ours = {}
    for name, value in state.items():
        if name.rpartition(".")[2] in _CONSTANTS:
            continue
        for pattern, replacement in (*special, *_RENAMED):
            name = re.sub(pattern, replacement, name)
        ours[name] = value
    return ours


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
