import numpy as np
import pytest

from sre.evaluation import auc
from sre.statistics import (
    areas_under_curve,
    balanced_accuracies,
    bootstrap_weights,
    interval,
    over_seeds,
    paired_p_value,
)


def test_the_first_sample_is_the_test_set_and_each_draws_as_many():
    weights = bootstrap_weights(40, resamples=500, seed=3)
    assert weights.shape == (501, 40)
    assert np.allclose(weights.sum(1), 1)
    assert (weights[0] == 1 / 40).all()
    assert np.allclose(weights * 40, np.round(weights * 40))
    # Drawn with replacement: a share of about 1/e of the images is in no sample.
    assert (weights[1:] == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)


def test_the_same_seed_draws_the_same():
    assert np.array_equal(bootstrap_weights(10, seed=1), bootstrap_weights(10, seed=1))
    assert not np.array_equal(bootstrap_weights(10, seed=1), bootstrap_weights(10, seed=2))


def test_an_interval_of_a_share_is_about_two_standard_errors_wide():
    right = np.arange(400) < 340  # 85 %
    found = interval(bootstrap_weights(400, resamples=4000) @ right)
    error = (0.85 * 0.15 / 400) ** 0.5
    assert found.value == 0.85
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.low < 0.85 < found.high


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        right = random.random(150) < 0.8
        found = interval(bootstrap_weights(150, resamples=300, seed=seed) @ right)
        hits += found.low <= 0.8 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_areas_equal_those_of_the_evaluation_ties_and_all():
    random = np.random.default_rng(1)
    for decimals in (1, 6):
        score = np.round(random.random((60, 2)), decimals)
        labels = random.integers(0, 2, 60)
        weights = bootstrap_weights(60, resamples=100)
        areas = areas_under_curve(weights, labels == 1, score[:, 1])
        both = np.stack([1 - score[:, 1], score[:, 1]], 1)
        assert areas[0] == pytest.approx(auc(both, labels))
        # A row of weights is that sample, drawn out in full.
        drawn = np.repeat(np.arange(60), np.round(weights[5] * 60).astype(int))
        assert areas[5] == pytest.approx(auc(both[drawn], labels[drawn]))


def test_an_area_needs_both_kinds():
    weights = bootstrap_weights(3, resamples=100)
    assert np.isnan(areas_under_curve(weights, np.zeros(3, bool), np.arange(3.0))).all()
    some = areas_under_curve(weights, np.array([True, False, False]), np.arange(3.0))
    assert some[0] == 0
    assert np.isnan(some).any()  # samples that never drew the true one


def test_balanced_accuracy_counts_classes_alike():
    correct = np.array([[True] * 8 + [False] * 2, [False] * 8 + [True] * 2])
    labels = np.array([0] * 8 + [1] * 2)
    found = balanced_accuracies(bootstrap_weights(10, resamples=100), correct, labels)
    assert found.shape == (101, 2)
    assert found[0].tolist() == [0.5, 0.5]
    assert np.isfinite(found).all()  # also where a sample lacks a class


def test_p_values_are_uniform_where_nothing_differs_and_small_where_something_does():
    random = np.random.default_rng(2)
    chance = [paired_p_value(random.normal(size=40), rounds=300, seed=s) for s in range(200)]
    assert 0.4 < np.mean(chance) < 0.6
    assert 0.01 < np.mean(np.array(chance) < 0.05) < 0.1
    assert paired_p_value(random.normal(1, 1, 60), rounds=2000) < 0.002
    assert paired_p_value(np.zeros(10)) == 1


def test_a_p_value_by_hand():
    # Three images, all in favour: of the eight ways to swap, two are as far from 0.
    assert paired_p_value(np.ones(3), rounds=20_000) == pytest.approx(2 / 8, abs=0.02)


def test_over_one_run_only_the_images_are_drawn():
    samples = np.random.default_rng(0).random((100, 1))
    assert (over_seeds(samples) == samples[:, 0]).all()


def test_over_many_runs_the_spread_is_that_of_their_mean():
    runs = np.random.default_rng(0).normal(size=400)
    found = over_seeds(np.tile(runs, (2001, 1)))
    assert found[0] == pytest.approx(runs.mean())
    assert found[1:].std() == pytest.approx(runs.std() / np.sqrt(len(runs)), rel=0.1)


def test_of_few_runs_the_spread_is_too_small_by_the_factor_that_is_told():
    draw, spreads = np.random.default_rng(0), []
    for _ in range(300):
        runs = draw.normal(size=3)
        spreads.append(over_seeds(np.tile(runs, (301, 1)))[1:].var())
    # The variance of a mean of three is 1/3.
    assert np.sqrt(np.mean(spreads) * 3) == pytest.approx(np.sqrt(2 / 3), rel=0.1)
