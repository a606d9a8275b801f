"""How sure a figure of a test set is: bootstrap samples as weights, and figures under them.

A bootstrap sample of N images, drawn with replacement, is how often each was drawn. One matrix of
such weights serves every figure of every model, which pairs the models by itself: the difference of
two figures under one sample has its interval from the same samples. The first row is the test set
as it is.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure of the whole test set, and the bounds of its 95 % bootstrap interval.

    >>> Interval(0.9, 0.88, 0.92).value
    0.9
    """

    value: float
    low: float
    high: float


def bootstrap_weights(images: int, *, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Draw samples with replacement: weights (1 + resamples, images), each row adding up to 1.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13

    >>> weights = bootstrap_weights(50, resamples=10)
    >>> weights.shape, bool(np.allclose(weights.sum(1), 1)), bool((weights[0] == 1 / 50).all())
    ((11, 50), True, True)
    """
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples)
    return np.vstack([np.ones((1, images)), drawn]) / images


def interval(samples: np.ndarray) -> Interval:
    """Sum up a figure under each row of weights: the first is the value, the rest its spread.

    Percentiles; of figures that a sample may lack (a class it never drew), of those that have it.

    >>> interval(np.array([0.5, 0.4, 0.5, 0.6]))
    Interval(value=0.5, low=0.405, high=0.595)
    """
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(samples[1:], [tail, 1 - tail])
    return Interval(*(round(float(x), 12) for x in (samples[0], low, high)))


def over_seeds(samples: np.ndarray, *, seed: int = 1) -> np.ndarray:
    """Average a figure over training runs, each bootstrap sample drawing its runs anew.

    Images and runs are crossed, as all runs answer the same images: both are drawn, independently
    of each other, and a sample's weight of an answer is the product. Of few runs the spread over
    them comes out too small, by a factor of sqrt((S - 1) / S) for S of them; of one it is missing.

    Shape: (R, S), a figure under each row of weights for each run -> (R,); the first is the mean
    Reference: Owen, The Pigeonhole Bootstrap, Annals of Applied Statistics 1 (2007) 386-411

    >>> over_seeds(np.array([[0.1, 0.3], [0.2, 0.2]]))
    array([0.2, 0.2])
    """
    resamples, runs = samples.shape
    return (bootstrap_weights(runs, resamples=resamples - 1, seed=seed) * runs * samples).mean(1)


def balanced_accuracies(weights: np.ndarray, correct: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean over the classes of the share of each that is right.

    Shape: weights (R, N), correct (A, N), labels (N,) -> (R, A)

    >>> right = np.array([[True, True, True, False]])
    >>> balanced_accuracies(bootstrap_weights(4, resamples=1)[:1], right, np.array([0, 0, 0, 1]))
    array([[0.5]])
    """
    shares = []
    for label in np.unique(labels):
        of_class = labels == label
        weight = weights[:, of_class]
        with np.errstate(invalid="ignore"):  # a sample without that class
            shares.append(weight @ correct[:, of_class].T.astype(float) / weight.sum(1)[:, None])
    return np.nanmean(np.stack(shares), axis=0)


def areas_under_curve(weights: np.ndarray, truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of one class against the rest; NaN where a sample lacks either.

    The chance that a true image scores above an untrue one, ties half, both drawn by weight.

    Shape: weights (R, N), truth (N,) of bool, score (N,) -> (R,)

    >>> weights, truth = bootstrap_weights(4, resamples=1)[:1], np.array([False, False, True, True])
    >>> areas_under_curve(weights, truth, np.array([0.1, 0.5, 0.5, 0.9]))
    array([0.875])
    """
    by_image, negatives = weights.T, np.flatnonzero(~truth)
    order = np.argsort(score[negatives], kind="stable")
    ranked = score[negatives][order]
    below = np.zeros((1 + len(order), len(weights)))  # weight of the lowest 0, 1, ... negatives
    np.cumsum(by_image[negatives[order]], axis=0, out=below[1:])
    drawn, own = by_image[truth], score[truth]
    wins = below[np.searchsorted(ranked, own)] + below[np.searchsorted(ranked, own, side="right")]
    pairs = drawn.sum(0) * below[-1]
    with np.errstate(invalid="ignore"):
        return np.where(pairs > 0, (drawn * wins).sum(0) / 2 / pairs, np.nan)


def areas_by_class(weights: np.ndarray, probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class against the rest; NaN where a sample lacks either.

    Shape: weights (R, N), probability (N, K), labels (N,) classes or (N, K) of 0, 1 -> (R, K)

    >>> weights, labels = bootstrap_weights(2, resamples=1)[:1], np.array([0, 1])
    >>> areas_by_class(weights, np.array([[0.9, 0.1], [0.2, 0.8]]), labels)
    array([[1., 1.]])
    """
    classes = np.arange(probability.shape[-1])
    truth = labels == 1 if labels.ndim == 2 else labels[:, None] == classes
    return np.stack(
        [areas_under_curve(weights, truth[:, k], probability[:, k]) for k in classes], axis=-1
    )


def paired_p_value(difference: np.ndarray, *, rounds: int = 10_000, seed: int = 0) -> float:
    """Test whether two models differ in the mean, by swapping them at random image by image.

    Two-sided, and never 0: the two as they are count as one of the permutations.

    Args: difference: of the two models' scores, one an image
    Reference: Good, Permutation Tests, 2000, chapter 3

    >>> paired_p_value(np.array([1.0, -1.0] * 20))
    1.0
    >>> paired_p_value(np.ones(40), rounds=1000) < 0.002
    True
    """
    found = abs(difference.mean())
    differing, draw = difference[difference != 0], np.random.default_rng(seed)
    reached = 1
    for start, stop in pairwise([*range(0, rounds, 1000), rounds]):
        signs = draw.integers(0, 2, (stop - start, len(differing))) * 2 - 1
        means = np.abs(signs @ differing) / len(difference)
        reached += int((means >= found - 1e-12).sum())
    return reached / (rounds + 1)
