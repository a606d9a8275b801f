"""What happens in each network as one image makes a full turn?"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sre.checkpoints import CheckpointCard, load_checkpoint
from sre.errors import CheckpointError, Dropped, SettingError
from sre.evaluation import decide, probabilities
from sre.explanation import compute_cams, trace
from sre.protocols import find_protocol, prepare, present_orbit
from sre.resnet import STAGES, ResNet
from sre.studies.naming import IN_SENTENCES, tell_apart
from sre.symmetry import Interpolation, disc_mask, relative_error, rotate_each, rotate_orbit

ANGLES_DEG = tuple(float(a) for a in range(0, 360, 5))
PASS_ANGLES, PASS_SIDE_PX = 24, 28  # of larger images fewer angles a pass: as many pixels
STRONGEST = 8  # channels shown of a stage, besides their mean


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage of one network over the orbit; angle a is the answer to the image turned by a."""

    name: str
    channels: tuple[int, ...]  # the strongest over the orbit, strongest first
    features: np.ndarray  # (1 + channels, angles, h, w): their mean over all channels, then each
    cam: np.ndarray  # (angles, h, w), raw, at least 0
    equivariance_error: np.ndarray  # (angles,), relative L2 inside the disc


@dataclass(frozen=True, slots=True)
class ModelView:
    """One network over the orbit."""

    card: CheckpointCard
    target: int  # the class that the CAMs explain
    probabilities: np.ndarray  # (angles, K)
    predictions: np.ndarray  # (angles,), or (angles, K) zeros and ones if multi-label
    stages: tuple[StageView, ...]

    @property
    def changes(self) -> int:
        """At how many angles the prediction is another than upright."""
        return self._unlike(self.predictions[:1])

    @property
    def switches(self) -> int:
        """How often the prediction changes from one angle to the next, around the full circle."""
        return self._unlike(np.roll(self.predictions, 1, axis=0))

    def _unlike(self, others: np.ndarray) -> int:
        # Of multi-label sets an answer is another if any of its labels is.
        differs = self.predictions != others
        return int(differs.reshape(len(differs), -1).any(1).sum())

    @property
    def consistency(self) -> float:
        """Share of angles, 0 included, with the same prediction as upright."""
        return 1 - self.changes / len(self.predictions)

    def confidence(self, label: int) -> np.ndarray:
        """Probability of one class at each angle."""
        return self.probabilities[:, label]


@dataclass(frozen=True, slots=True)
class OrbitView:
    """One image, turned through a full circle, and the networks' answers."""

    angles_deg: np.ndarray
    protocol: str
    label: int | tuple[int, ...] | None  # the true class, or 0/1 a label; None: not known
    side_px: int  # the largest that a network takes
    seen: np.ndarray  # uint8 (angles, S, S, C): what that one sees, before normalising
    interpolation_error: np.ndarray  # (angles,): of turning it to and back alone, the floor of all
    models: tuple[ModelView, ...]

    @property
    def headline(self) -> str:
        """Say in words what is to be seen, whoever comes off better."""
        cards = [m.card for m in self.models]
        names = tell_apart(cards, [IN_SENTENCES[card.arm] for card in cards])
        parts = [
            f"{name} changes its mind {times(m.switches)}"
            if m.switches
            else f"{name} never changes its mind"
            for name, m in zip(names, self.models, strict=True)
        ]
        said = f"Over the full turn {join(parts)}."
        if len(parts) > 1 and not any(m.switches for m in self.models):
            said = "Over the full turn no network changes its mind."
        if not isinstance(self.label, int):
            return said
        share = [
            (name, (m.predictions == self.label).mean())
            for name, m in zip(names, self.models, strict=True)
        ]
        if all(s == 1 for _, s in share) and len(share) > 1:
            return f"{said} All are right at every angle."
        if all(s == 0 for _, s in share):
            return f"{said} {'None is' if len(share) > 1 else 'It is not'} right at any angle."
        right = join([f"{name} at {100 * s:.0f} %" for name, s in share])
        return f"{said} Right answers: {right} of the angles."


def times(count: int) -> str:
    """Count in words that fit "changes its mind ..."."""
    return f"{count} time" + ("" if count == 1 else "s")


def join(parts: Sequence[str]) -> str:
    """List parts in a sentence."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def study_orbit(
    image: np.ndarray,
    *,
    checkpoints: Sequence[Path],
    protocol: str = "disc",
    label: int | tuple[int, ...] | None = None,
    target: int | None = None,
    device: str = "cpu",
    is_wanted: Callable[[], bool] = lambda: True,
) -> OrbitView:
    """Turn an image, uint8 (H, H) or (H, H, 3), by every angle and trace the networks, a pass each.

    Each network gets the image at the side that it was trained with, if the protocol has none.
    CAMs explain ``target`` or, by default, what each network predicts upright.

    Raises: CheckpointError: a checkpoint cannot be loaded, takes other images, does not fit the
            others, or answers with infinite numbers
        SettingError: the target is no class; UnknownNameError: no such protocol
        Dropped: ``is_wanted`` has become false between two networks
    """
    chosen = find_protocol(protocol)
    loaded = [load_fresh(path, device) for path in checkpoints]
    if not loaded:
        raise CheckpointError("no checkpoint was given; train one, or choose another data set")
    channels, first = 3 if image.ndim == 3 else 1, loaded[0][1]
    for path, (_, card) in zip(checkpoints, loaded, strict=True):
        if card.in_channels != channels:
            raise CheckpointError(
                f"{path.name} takes images of {card.in_channels} channels, this one has {channels};"
                " choose another data set"
            )
        if card.classes != first.classes:
            raise CheckpointError(
                f"{path.name} has other classes than {checkpoints[0].name}; train both on one data "
                "set"
            )
        if target is not None and not 0 <= target < len(card.classes):
            raise SettingError(
                f"the class to explain must be from 0 to {len(card.classes) - 1}, got {target}"
            )
    inputs = {
        side: present_orbit(
            prepare(image[None], chosen, side_px=side).to(device), chosen, ANGLES_DEG
        )
        for side in {chosen.side_of(card.side_px) for _, card in loaded}
    }
    models = []
    for path, (model, card) in zip(checkpoints, loaded, strict=True):
        if not is_wanted():
            raise Dropped("the visitor has moved on; ask again if you still want it")
        models.append(_trace_orbit(model, card, inputs[chosen.side_of(card.side_px)], target))
        if not _is_finite(models[-1]):
            raise CheckpointError(
                f"{path.name} answers this image with numbers that are not finite; train it again"
            )
    x = inputs[max(inputs)]
    seen = ((x * 0.5 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return OrbitView(
        np.array(ANGLES_DEG),
        protocol,
        label,
        x.shape[-1],
        seen,
        _interpolation_error(x[:1], chosen.interpolation),
        tuple(models),
    )


def load_fresh(path: Path, device: str = "cpu") -> tuple[ResNet, CheckpointCard]:
    """Load a checkpoint once, and anew when its file has changed."""
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        stamp = 0  # loading says what is wrong
    return _load(path, device, stamp)


@lru_cache(maxsize=12)
def _load(path: Path, device: str, stamp: int) -> tuple[ResNet, CheckpointCard]:
    model, card = load_checkpoint(path, device=device)
    return model.fused(), card


def _trace_orbit(
    model: ResNet, card: CheckpointCard, x: Float[Tensor, "angles C S S"], target: int | None
) -> ModelView:
    # In parts: what the way back needs of all 72 at width 64 is half a gigabyte. Nor are the parts
    # joined: large blocks between small ones scatter the heap, which cost 150 MB more.
    logits: list[Tensor] = []
    features: dict[str, list[Tensor]] = {name: [] for name in STAGES}
    cams: dict[str, list[Tensor]] = {name: [] for name in STAGES}
    angles = max(1, int(PASS_ANGLES * min(1, (PASS_SIDE_PX / x.shape[-1]) ** 2)))
    for some in x.split(angles):
        traced = trace(model, some)
        logits.append(traced.logits.detach())
        target = int(logits[0][0].argmax()) if target is None else target
        for name, cam in compute_cams(traced, targets=target).items():
            cams[name].append(cam)
            features[name].append(traced.features[name].detach())
        del traced
    found = probabilities(torch.cat(logits), is_multi_label=card.is_multi_label).cpu().numpy()
    stages = [_view_stage(name, features.pop(name), torch.cat(cams[name])) for name in STAGES]
    predictions = decide(found, is_multi_label=card.is_multi_label)
    assert target is not None  # an orbit has angles
    return ModelView(card, target, found, predictions, tuple(stages))


def _view_stage(
    name: str, parts: Sequence[Float[Tensor, "_ c h w"]], cam: Float[Tensor, "angles h w"]
) -> StageView:
    strength = torch.stack([maps.abs().sum((0, 2, 3)) for maps in parts]).sum(0)
    strongest = strength.topk(min(STRONGEST, len(strength))).indices
    shown = [torch.cat([maps.mean(1, keepdim=True), maps[:, strongest]], 1) for maps in parts]
    return StageView(
        name,
        tuple(strongest.tolist()),
        torch.cat(shown).transpose(0, 1).cpu().numpy(),
        cam.cpu().numpy(),
        _equivariance_error(parts),
    )


def _equivariance_error(parts: Sequence[Float[Tensor, "_ c h w"]]) -> np.ndarray:
    # f(g·x) against g·f(x), where f(x) are the maps at angle 0.
    upright, angles, errors = parts[0][:1], iter(ANGLES_DEG), []
    for maps in parts:
        some = list(itertools.islice(angles, len(maps)))
        expected = rotate_each(upright.expand_as(maps).contiguous(), some)
        errors.append(relative_error(maps, expected, _mask(maps), against=upright))
    return torch.cat(errors).cpu().numpy()


def _is_finite(view: ModelView) -> bool:
    found = [view.probabilities]
    for stage in view.stages:
        found += [stage.features, stage.cam, stage.equivariance_error]
    return all(bool(np.isfinite(values).all()) for values in found)


def _interpolation_error(
    seen: Float[Tensor, "1 C S S"], interpolation: Interpolation
) -> np.ndarray:
    # There as the image is turned, and back as maps are, which is bilinearly.
    there = rotate_orbit(seen, list(ANGLES_DEG), interpolation=interpolation)
    back = rotate_each(there, [-angle for angle in ANGLES_DEG])
    return relative_error(back, seen, _mask(seen)).cpu().numpy()


def _mask(maps: Tensor) -> Bool[Tensor, "h w"]:
    return disc_mask(*maps.shape[-2:]).to(maps.device)
