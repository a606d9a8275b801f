"""Class activation maps (CAMs): where, at each stage, a network sees its reason for a class.

Computed without hooks, from ``forward_features``, ``forward_head`` and ``autograd.grad``, so that
any number of threads may explain one model at once. Maps are raw: neither scaled by their own
range, which would hide how they change from angle to angle, nor resized to the image.
"""

import copy
import importlib
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType, ModuleType, SimpleNamespace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sre.errors import SettingError, UnknownNameError
from sre.resnet import STAGES, ResNet

METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "eigencam")
# The grad-cam package's other methods, those that give one map a stage, and their classes.
PACKAGE_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "xgradcam": "XGradCAM",
        "gradcam_elementwise": "GradCAMElementWise",
        "eigengradcam": "EigenGradCAM",
        "segeigencam": "SegEigenCAM",
        "fem": "FEM",
        "scorecam": "ScoreCAM",
        "ablationcam": "AblationCAM",
    }
)
# Guards the package's own global state (AblationCAM's layer is one for all); holds none of ours.
_PACKAGE_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Trace:
    """One forward pass with its graph, for CAMs of targets chosen after seeing the logits.

    >>> from sre.models import build_model
    >>> model = build_model("sre_resnet18", in_channels=1, num_classes=2, width=4).eval()
    >>> tuple(trace(model, torch.randn(1, 1, 24, 24)).features)
    ('stem', 'stage1', 'stage2', 'stage3', 'stage4')
    """

    logits: Float[Tensor, "B K"]
    features: Mapping[str, Float[Tensor, "B _ _ _"]]


@dataclass(frozen=True, slots=True)
class Explained:
    """Everything of one forward pass, detached from the graph; by stage, in the network's order.

    >>> from sre.models import build_model
    >>> model = build_model("sre_resnet18", in_channels=1, num_classes=2, width=4).eval()
    >>> explain(model, torch.randn(1, 1, 24, 24)).cams["stage1"].shape
    torch.Size([1, 24, 24])
    """

    logits: Float[Tensor, "B K"]
    features: Mapping[str, Float[Tensor, "B _ _ _"]]
    cams: Mapping[str, Float[Tensor, "B _ _"]]


def explain(
    model: ResNet,
    x: Float[Tensor, "B C H W"],
    *,
    targets: int | Sequence[int] | Tensor | None = None,
    stages: Sequence[str] = STAGES,
    method: str = "gradcam",
) -> Explained:
    """Give logits, feature maps and CAMs from one pass forward and one back.

    Works on frozen and trainable models, also under ``no_grad`` and ``inference_mode``; leaves the
    model, its ``.grad`` and ``x`` as they were.

    Args: targets: a class for all images, or one an image; by default, each image's prediction
    Raises: as ``trace`` and ``compute_cams``

    >>> from sre.models import build_model
    >>> model = build_model("sre_resnet18", in_channels=1, num_classes=2, width=4).eval()
    >>> explained = explain(model, torch.randn(3, 1, 24, 24), targets=1)
    >>> explained.logits.shape, explained.cams["stage4"].shape
    (torch.Size([3, 2]), torch.Size([3, 3, 3]))
    """
    traced = trace(model, x)
    cams = compute_cams(traced, targets=targets, stages=stages, method=method)
    features = {name: maps.detach() for name, maps in traced.features.items()}
    return Explained(traced.logits.detach(), MappingProxyType(features), MappingProxyType(cams))


def trace(model: ResNet, x: Float[Tensor, "B C H W"]) -> Trace:
    """Run the model once, keeping what ``compute_cams`` needs, for as many targets as wanted.

    Raises: ValueError: the model is in training mode, where batch-norm mixes the images

    >>> from sre.models import build_model
    >>> model = build_model("sre_resnet18", in_channels=1, num_classes=2, width=4).eval()
    >>> trace(model, torch.randn(1, 1, 24, 24)).logits.requires_grad
    True
    """
    if model.training:
        raise ValueError("the model must be in eval mode, got training mode; call model.eval()")
    with _gradients():
        # The graph starts at the image, as the parameters may be frozen.
        features = _frozen(model).forward_features(_leaf(x))
        return Trace(model.forward_head(features[STAGES[-1]]), features)


def compute_cams(
    traced: Trace,
    *,
    targets: int | Sequence[int] | Tensor | None = None,
    stages: Sequence[str] = STAGES,
    method: str = "gradcam",
) -> dict[str, Float[Tensor, "B h w"]]:
    """Give the raw CAM of each stage, at least 0, at the stage's own size.

    Each equals what the grad-cam package has before it scales a map to [0, 1]. As there, the sign
    of an ``eigencam`` before its ReLU is whatever the singular value decomposition chooses, so
    that this map alone need not turn with the image.

    Raises: UnknownNameError: no such method or stage; SettingError: a target that is no class
    Reference: Selvaraju et al. 2017 (gradcam), Chattopadhay et al. 2018 (gradcam++), Draelos and
        Carin 2020 (hirescam), Jiang et al. 2021 (layercam), Muhammad and Yeasin 2020 (eigencam)

    >>> from sre.models import build_model
    >>> model = build_model("sre_resnet18", in_channels=1, num_classes=2, width=4).eval()
    >>> traced = trace(model, torch.randn(1, 1, 24, 24))
    >>> cams = [compute_cams(traced, targets=k, method="hirescam")["stage3"] for k in (0, 1)]
    >>> cams[0].shape, bool(cams[0].min() >= 0)
    (torch.Size([1, 6, 6]), True)
    """
    _check_names(method, METHODS, stages, traced.features)
    wanted = [traced.features[name] for name in stages]
    if method == "eigencam":
        return {name: _eigencam(maps) for name, maps in zip(stages, wanted, strict=True)}
    with _gradients():
        chosen = _as_targets(targets, traced.logits)
        score = traced.logits.gather(1, chosen[:, None]).sum()
        grads = torch.autograd.grad(score, wanted, retain_graph=True)
    return {
        name: _gradient_cam(method, maps.detach(), grad)
        for name, maps, grad in zip(stages, wanted, grads, strict=True)
    }


def compute_package_cams(
    model: ResNet,
    x: Float[Tensor, "B C H W"],
    *,
    method: str,
    targets: int | Sequence[int] | Tensor | None = None,
    stages: Sequence[str] = STAGES,
) -> dict[str, Float[Tensor, "B h w"]]:
    """Give raw CAMs, as ``compute_cams``, by a method that only the grad-cam package has.

    One caller at a time: the package keeps activations in hooks, here on a private copy of the
    model. ``scorecam`` and ``ablationcam`` take a forward pass a channel: not live.

    Raises: UnknownNameError, ValueError: as above; SettingError: also, the package is not usable

    >>> from sre.models import build_model
    >>> model = build_model("sre_resnet18", in_channels=1, num_classes=2, width=4).eval()
    >>> x = torch.randn(1, 1, 24, 24)
    >>> compute_package_cams(model, x, method="xgradcam", stages=["stage4"])["stage4"].shape
    torch.Size([1, 3, 3])
    """
    _check_names(method, PACKAGE_METHODS, stages, STAGES)
    chosen = _as_targets(targets, trace(model, x).logits).tolist()
    with _PACKAGE_LOCK, _gradients():
        package = _load_package(method)
        private, x = _frozen(copy.deepcopy(model)), _leaf(x)
        ordered = [name for name in STAGES if name in stages]  # its lists are in this order
        layers = [private.get_submodule(name) for name in ordered]
        cam = getattr(package, PACKAGE_METHODS[method])(private, layers)
        wanted = [package.utils.model_targets.ClassifierOutputTarget(c) for c in chosen]
        logits = cam.activations_and_grads(x)
        if cam.uses_gradients:
            sum(target(scores) for target, scores in zip(wanted, logits, strict=True)).backward()
        maps = [a.numpy() for a in cam.activations_and_grads.activations]
        grads = [g.numpy() for g in cam.activations_and_grads.gradients] or [None] * len(maps)
        raw = {
            name: cam.get_cam_image(x, layer, wanted, *found, eigen_smooth=False)
            for name, layer, *found in zip(ordered, layers, maps, grads, strict=True)
        }
    return {name: torch.from_numpy(np.maximum(raw[name], 0)).to(x.detach()) for name in stages}


@contextmanager
def _gradients() -> Iterator[None]:
    # Also under the caller's no_grad or inference_mode.
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _leaf(x: Tensor) -> Tensor:
    # A clone, as tensors made under inference_mode cannot enter a graph.
    return x.detach().clone().requires_grad_()


def _frozen(model: ResNet) -> ResNet:
    # A copy that shares the numbers of a trainable model but asks for no gradients of them: these
    # would double the work of the way back.
    parameters = list(model.parameters())
    if any(p.is_inference() for p in parameters):
        raise ValueError(
            "the model's parameters were made under inference_mode, which allows no gradients; "
            "load the model outside of it"
        )
    if not any(p.requires_grad for p in parameters):
        return model
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in parameters}
    return copy.deepcopy(model, memo=shared)


def _as_targets(targets: int | Sequence[int] | Tensor | None, logits: Tensor) -> Tensor:
    batch, classes = logits.shape
    if targets is None:
        return logits.argmax(dim=1)
    chosen = torch.as_tensor(targets, device=logits.device)
    if chosen.dim() == 0:
        chosen = chosen.expand(batch)
    if chosen.shape != (batch,) or chosen.is_floating_point():
        raise ValueError(f"targets must be one class, or {batch}, got {targets!r}")
    if not all(0 <= target < classes for target in chosen.tolist()):
        raise SettingError(f"target must be a class from 0 to {classes - 1}, got {targets!r}")
    return chosen.long().clone()


def _check_names(
    method: str,
    methods: Sequence[str] | Mapping[str, str],
    stages: Sequence[str],
    known: Collection[str],
) -> None:
    if method not in methods:
        raise UnknownNameError(f"unknown method {method!r}; choose from {', '.join(methods)}")
    for name in stages:
        if name not in known:
            raise UnknownNameError(f"unknown stage {name!r}; choose from {', '.join(known)}")


def _gradient_cam(
    method: str, maps: Float[Tensor, "B c h w"], grad: Float[Tensor, "B c h w"]
) -> Float[Tensor, "B h w"]:
    if method == "hirescam":
        return (grad * maps).sum(1).relu()
    if method == "layercam":
        return (grad.relu() * maps).sum(1).relu()
    weight = grad.mean((-2, -1)) if method == "gradcam" else _plus_plus_weight(maps, grad)
    return torch.einsum("bc,bchw->bhw", weight, maps).relu()


def _plus_plus_weight(
    maps: Float[Tensor, "B c h w"], grad: Float[Tensor, "B c h w"]
) -> Float[Tensor, "B c"]:
    # Equation 19 of the paper, with the package's guard against division by zero.
    square = grad**2
    alpha = square / (2 * square + maps.sum((-2, -1), keepdim=True) * square * grad + 1e-6)
    return (alpha * grad.relu()).sum((-2, -1))


def _eigencam(maps: Float[Tensor, "B c h w"]) -> Float[Tensor, "B h w"]:
    # To the letter as in the package: the sign may hang on the last bit.
    cams = np.zeros((len(maps), *maps.shape[2:]), dtype=np.float32)
    for cam, image in zip(cams, maps.detach().cpu().contiguous().numpy(), strict=True):
        points = image.reshape(len(image), -1).T
        points = points - points.mean(axis=0)
        first = np.linalg.svd(points, full_matrices=False)[2][0]
        cam[:] = np.maximum(points @ first, 0).reshape(cam.shape)
    return torch.from_numpy(cams).to(maps)


def _load_package(method: str) -> ModuleType:
    # Here, not at the top: it takes seconds, and brings torchvision and OpenCV.
    try:
        package = importlib.import_module("pytorch_grad_cam")
    except (ImportError, RuntimeError, OSError) as error:
        raise SettingError(
            f"method {method!r} needs the package grad-cam, which cannot be imported ({error}); "
            f"install it together with torch, or choose from {', '.join(METHODS)}"
        ) from error
    silent = SimpleNamespace(tqdm=iter)  # their progress bars would fill the server's console
    package.score_cam.tqdm = package.ablation_cam.tqdm = silent
    return package
