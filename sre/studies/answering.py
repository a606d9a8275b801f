"""Ask networks about all images in all poses: a pass a pose, shared, kept on disk, in parallel."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier

import numpy as np
import torch
from torch import Tensor

from sre.data.split import Split
from sre.evaluation import probabilities
from sre.poses import Pose, present_pose
from sre.protocols import Protocol, find_protocol, prepare
from sre.studies.contenders import Contender
from sre.whole import make_room, replacing

CHUNK_IMAGES = 256
HOLD_BYTES = 2**28  # of presented images; more are presented anew for each network
# Answers this near at all quarter turns are the same function to rounding.
EXACT, EXACT_IMAGES = 1e-4, 64
KEPT_BYTES = 2**30  # of answers on disk; those used longest ago leave
_KEPT_NAMES = f"{64 * '[0-9a-f]'}.npy"  # nobody else's: the folder may be any
Answers = dict[tuple[str, Pose], np.ndarray]


@dataclass(frozen=True, slots=True)
class Measured:
    """How many answers there are: one for each network, pose and image."""

    name: str  # of the network that gave the last ones
    done: int
    total: int


@dataclass(slots=True)
class Asking:
    """Networks, and the images that all of them are asked about."""

    contenders: Sequence[Contender]
    images: np.ndarray
    protocol: Protocol
    is_multi_label: bool
    mark: str  # of the images, see mark_of
    device: str = "cpu"
    keep_dir: Path | None = None
    # By network: whether quarter turns change nothing, as measured.
    exact: dict[str, bool] = field(default_factory=dict)

    def ask(self, poses: Sequence[Pose]) -> Iterator[Measured | Answers]:
        """Ask everyone; the last event holds the answers, probabilities (N, K) by name and pose.

        Networks that quarter turns do not change (measured on some images) are asked in one of
        the poses that differ by these alone.
        """
        if self.keep_dir is not None:
            make_room(self.keep_dir, _KEPT_NAMES, KEPT_BYTES)
        answers: Answers = {}
        total, done = len(self.contenders) * len(poses) * len(self.images), 0
        with _workers(self.device) as pool:
            for upright in dict.fromkeys(pose.upright for pose in poses):
                group = [pose for pose in poses if pose.upright == upright]
                chunks = {who.side_px: self._chunks(who.side_px, upright)
                          for who in self.contenders}  # fmt: skip
                for who in self.contenders:
                    for pose in group:
                        answer = self._known(who, pose, group, answers)
                        if answer is None:
                            parts = []
                            for part in pool(self._answering(who, pose), chunks[who.side_px]()):
                                parts.append(part)
                                yield Measured(who.name, done + sum(map(len, parts)), total)
                            answer = np.concatenate(parts)
                            self._check_exact(who, chunks[who.side_px]())
                            _keep(self._file(who, pose), answer)
                        answers[who.name, pose] = answer
                        done += len(self.images)
                        yield Measured(who.name, done, total)
        yield answers

    def _known(
        self, who: Contender, pose: Pose, group: Sequence[Pose], answers: Answers
    ) -> np.ndarray | None:
        kept = _kept(self._file(who, pose), len(self.images))
        if kept is not None or not self.exact.get(who.name):
            return kept
        same = next((answers[who.name, p] for p in group if (who.name, p) in answers), None)
        if same is not None:
            _keep(self._file(who, pose), same)
        return same

    def _chunks(self, side_px: int, pose: Pose) -> Callable[[], Iterable[Tensor]]:
        def present() -> Iterator[Tensor]:
            for start in range(0, len(self.images), CHUNK_IMAGES):
                some = self.images[start : start + CHUNK_IMAGES]
                pixels = prepare(some, self.protocol, side_px=side_px).to(self.device)
                yield present_pose(pixels, self.protocol, pose)

        channels = 3 if self.images.ndim == 4 else 1
        side = self.protocol.side_of(side_px)
        if 4 * len(self.images) * channels * side**2 > HOLD_BYTES:
            return present
        held: list[Tensor] = []

        def hold() -> list[Tensor]:
            if not held:
                held.extend(present())
            return held

        return hold

    def _answering(self, who: Contender, pose: Pose) -> Callable[[Tensor], np.ndarray]:
        def answer(x: Tensor) -> np.ndarray:
            return self._probabilities(who, x.rot90(pose.quarter_turns, (-2, -1)))

        return answer

    @torch.inference_mode()
    def _probabilities(self, who: Contender, x: Tensor) -> np.ndarray:
        logits = who.model(x).float()
        return probabilities(logits, is_multi_label=self.is_multi_label).cpu().numpy()

    def _check_exact(self, who: Contender, chunks: Iterable[Tensor]) -> None:
        if who.name in self.exact:
            return
        some = next(iter(chunks))[:EXACT_IMAGES]
        found = [self._probabilities(who, some.rot90(q, (-2, -1))) for q in range(4)]
        self.exact[who.name] = all(np.abs(f - found[0]).max() < EXACT for f in found)

    def _file(self, who: Contender, pose: Pose) -> Path | None:
        if self.keep_dir is None:
            return None
        told = [who.digest, self.mark, self.protocol.name, pose.words]
        told += [str(who.rotations)] if who.rotations > 1 else []
        return self.keep_dir / f"{hashlib.sha256('-'.join(told).encode()).hexdigest()}.npy"


def mark_of(images: np.ndarray, labels: np.ndarray) -> str:
    """Tell images and their labels apart from all others, 64 hex digits."""
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def answers_over(
    who: Contender,
    data: Split,
    protocol: str,
    angles_deg: Sequence[float],
    *,
    keep_dir: Path | None = None,
) -> np.ndarray:
    """Give one contender's probabilities (angles, N, K), from ``keep_dir`` where they are there."""
    asking = Asking(
        [who], data.images, find_protocol(protocol), who.card.is_multi_label,
        mark_of(data.images, data.labels), str(next(who.model.parameters()).device), keep_dir,
    )  # fmt: skip
    *_, answers = asking.ask([Pose(angle) for angle in angles_deg])
    assert isinstance(answers, dict)  # the last event
    return np.stack([answers[who.name, Pose(angle)] for angle in angles_deg])


def _kept(path: Path | None, images: int) -> np.ndarray | None:
    # What cannot be read is computed anew.
    if path is None:
        return None
    try:
        found = np.load(path, allow_pickle=False)
        with suppress(OSError):  # of a folder that is read-only
            os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return found if isinstance(found, np.ndarray) and found.shape[:1] == (images,) else None


def _keep(path: Path | None, answer: np.ndarray) -> None:
    # What cannot be written costs time only, in the next evaluation.
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("wb") as file:
            np.save(file, answer)
    except OSError:
        pass


_Map = Callable[[Callable[[Tensor], np.ndarray], Iterable[Tensor]], Iterator[np.ndarray]]


@contextmanager
def _workers(device: str) -> Iterator[_Map]:
    """Give a map over as many threads as PyTorch would take, each of which computes on its own.

    PyTorch's own threads wait for each other several times a layer, which costs a network of small
    layers a part of their gain, and nearly all of it where other programs run.
    """
    count = torch.get_num_threads() if device == "cpu" else 1
    if count == 1:
        yield lambda function, parts: map(function, parts)
        return
    started = Barrier(count + 1)

    def begin() -> None:
        torch.set_num_threads(1)  # of this thread, and of those that start before the line below
        started.wait()

    pool = ThreadPoolExecutor(count, "answering", initializer=begin)
    try:
        for _ in range(count):
            pool.submit(int)
        started.wait()
        torch.set_num_threads(count)
        yield lambda function, parts: pool.map(function, parts)
    finally:
        pool.shutdown(cancel_futures=True)
