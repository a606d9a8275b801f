import numpy as np
import pytest
from sklearn.datasets import load_digits

from sre.data.digits import make_digits


def test_they_are_scikit_learns_digits_each_used_once():
    splits = [make_digits(name) for name in ("train", "val", "test")]
    assert [len(split) for split in splits] == [1197, 200, 400]
    labels = np.concatenate([split.labels for split in splits])
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(load_digits().target))
    images = np.concatenate([split.images for split in splits])
    assert images.shape == (1797, 28, 28)
    assert images.dtype == np.uint8
    # Every original reappears: its ink is kept by the enlargement to within clipping.
    ink, original = images.sum((1, 2)), load_digits().images.sum((1, 2))
    assert np.corrcoef(np.sort(ink), np.sort(original))[0, 1] > 0.999
    assert len({image.tobytes() for image in images}) == 1797


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_every_digit_has_its_share(name):
    split = make_digits(name)
    share = np.bincount(split.labels) / np.bincount(load_digits().target)
    np.testing.assert_allclose(share, len(split) / 1797, atol=0.01)


def test_the_disc_cuts_nothing():
    images = make_digits("train").images.astype(float)
    place = np.arange(28) - 13.5
    outside = np.hypot(place[:, None], place[None, :]) > 14
    assert (images * outside).sum((1, 2)).max() / images.sum((1, 2)).mean() < 0.01


def test_a_digit_stands_upright():
    # Golden: the top of a 7 is its widest stroke; of a 4 it is not.
    split = make_digits("train")
    rows = np.array([split.images[split.labels == d].mean(0).sum(1) for d in range(10)])
    assert rows[7][:14].sum() > rows[7][14:].sum()
    assert rows[6][14:].sum() > rows[6][:14].sum()
    assert rows[9][:14].sum() > rows[9][14:].sum()


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'dev'"):
        make_digits("dev")
