import hashlib

import numpy as np
import pytest

from sre.data.cells import make_cells
from sre.data.digits import make_digits


def directions(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the dark matter in the disc lies from its middle, and the way that it is long.

    Returns: unit complex numbers, the second of the doubled angle (an axis has no sign)
    """
    darkness = 255 - images.reshape(len(images), 28, 28, -1).mean(-1)
    place = np.arange(28) - 13.5
    inside = np.hypot(place[:, None], place[None, :]) <= 14
    weight = (darkness - darkness.min(axis=(1, 2), keepdims=True)) * inside
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    z = place[None, :] - 1j * place[:, None]
    first = (weight * z).sum(axis=(1, 2))
    second = (weight * (z - first[:, None, None]) ** 2).sum(axis=(1, 2))
    return first / np.abs(first), second / np.abs(second)


def rayleigh(directions: np.ndarray) -> float:
    """Give n |mean|²: for directions uniform over the circle, over 12 once in 160,000 times."""
    return len(directions) * abs(directions.mean()) ** 2


def test_the_bytes_are_the_same_on_every_machine():
    split = make_cells("val")
    assert (
        hashlib.md5(split.images.tobytes() + split.labels.tobytes()).hexdigest()
        == "916fb88146b7585750650652de2c0cf6"
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("val", 500),
        pytest.param("test", 1000, marks=pytest.mark.slow),
        pytest.param("train", 4000, marks=pytest.mark.slow),
    ],
)
def test_a_split_has_its_size_and_every_class_alike(name, count):
    split = make_cells(name)
    assert split.images.shape == (count, 28, 28, 3)
    assert split.images.dtype == np.uint8
    assert split.labels.dtype == np.int64
    assert np.ptp(np.bincount(split.labels, minlength=8)) <= 1


@pytest.mark.slow
def test_no_image_is_drawn_twice():
    splits = [make_cells(name) for name in ("train", "val", "test")]
    drawn = [image.tobytes() for split in splits for image in split.images]
    assert len(set(drawn)) == len(drawn) == 5500


@pytest.mark.parametrize("kind", range(8))
def test_no_class_has_a_preferred_direction(kind):
    split = make_cells("val")
    for found in directions(split.images[split.labels == kind]):
        assert rayleigh(found) < 12  # measured: 2.4 at most


def test_no_class_has_a_preferred_hand():
    # The angle from a cell's long axis to its heavy side changes sign in a mirror.
    split = make_cells("val")
    for kind in range(8):
        position, axis = directions(split.images[split.labels == kind])
        hand = (position**2 * axis.conj()).imag
        assert len(hand) * hand.mean() ** 2 < 8  # measured: 2.4 at most


@pytest.mark.parametrize("digit", range(10))
def test_digits_fail_the_same_check(digit):
    split = make_digits("train")
    _, axis = directions(255 - split.images[split.labels == digit])
    assert rayleigh(axis) > 100  # of at most 122, were all of them parallel


def test_every_class_is_stained_alike():
    # Colour alone must not tell the class: stain is drawn from the same ranges for all.
    split = make_cells("val")
    corner = split.images[:, :3, :3].reshape(len(split), -1).mean(1)
    means = [corner[split.labels == kind].mean() for kind in range(8)]
    assert np.ptp(means) < 12  # grey levels of 255; measured: 7.0, from 62 images a class


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'dev'"):
        make_cells("dev")
