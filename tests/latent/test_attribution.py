import json
import math

import numpy as np
import pytest
import torch

import stylegan
from stylegan.errors import DataError
from stylegan.latent.attribution import (
    Calibration,
    area_error,
    area_under_curve,
    decide,
    histogram_edges,
    image_with_seeded_noise,
    roc_curve,
)
from stylegan.models.noise import noise_maps


def lognormal(num, mean, *, seed):
    return np.exp(np.random.default_rng(seed).normal(mean, 1, num)).tolist()


def calibration(own, real):
    return Calibration(generated=own, real=real, facts={"network": {"sha256": "a"}})


@pytest.mark.slow
def test_area_of_cases_counted_by_hand():
    assert area_under_curve([1, 2, 3], [4, 5]) == 1
    assert area_under_curve([4, 5], [1, 2, 3]) == 0
    # pairs (1,2) (1,4) (3,4) are won, (3,2) is lost
    assert area_under_curve([1, 3], [2, 4]) == 0.75
    assert area_under_curve([1, 2], [2, 3]) == (1 + 1 + 0.5 + 1) / 4  # a tie counts half


def test_area_is_that_under_the_curve():
    own, real = lognormal(60, 0, seed=0), lognormal(40, 1, seed=1)
    false, true = roc_curve(own, real)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(area_under_curve(own, real), abs=1e-12)
    tied = [round(value) for value in own], [round(value) for value in real]
    false, true = roc_curve(*tied)
    assert np.trapezoid(true, false) == pytest.approx(area_under_curve(*tied), abs=1e-12)


def test_error_of_the_area_is_how_it_varies():
    areas, errors = [], []
    for seed in range(300):
        own, real = lognormal(50, 0, seed=2 * seed), lognormal(50, 1, seed=2 * seed + 1)
        areas.append(area_under_curve(own, real))
        errors.append(area_error(own, real))
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.15)
    # two normal distributions, one deviation apart: Phi(1 / sqrt(2))
    assert np.mean(areas) == pytest.approx(0.5 * (1 + math.erf(0.5)), abs=0.01)
    assert area_error([1, 2, 3], [4, 5, 6]) == 0


def test_probabilities_are_what_they_say():
    # log odds of two normals of equal width are a line: here (0.5 - x) / 1 in x = log d
    found = calibration(lognormal(4000, 0, seed=0), lognormal(4000, 1, seed=1))
    for x in (-2.0, 0.0, 0.5, 2.0):
        expected = 1 / (1 + math.exp(-(0.5 - x)))
        assert found.probability(math.exp(x)) == pytest.approx(expected, abs=0.02)
    # of new images in each tenth, as many are own as the mean probability says
    own, real = lognormal(20000, 0, seed=2), lognormal(20000, 1, seed=3)
    p = np.array([found.probability(d) for d in [*own, *real]])
    is_own = np.arange(len(p)) < len(own)
    for low in np.arange(0.1, 0.9, 0.1):
        inside = (p >= low) & (p < low + 0.1)
        assert is_own[inside].mean() == pytest.approx(p[inside].mean(), abs=0.03)


def test_sides_of_different_sizes_weigh_the_same():
    few = calibration(lognormal(200, 0, seed=0), lognormal(4000, 1, seed=1))
    assert few.probability(math.exp(0.5)) == pytest.approx(0.5, abs=0.05)


def test_sides_that_are_apart_give_a_probability_that_is_not_certain():
    found = calibration([0.01, 0.012, 0.014, 0.013, 0.011], [0.2, 0.21, 0.3, 0.25, 0.22])
    assert found.area == 1
    assert found.area_error == 0
    assert found.overlap == 0
    assert found.probability(0.012) == pytest.approx(6 / 7, abs=0.03)  # Platt's target
    assert found.probability(0.25) == pytest.approx(1 / 7, abs=0.03)
    # more extreme distances are not more certain than Platt's targets
    assert found.probability(0.0) == pytest.approx(6 / 7)
    assert found.probability(1e9) == pytest.approx(1 / 7)


def test_overlap_of_equal_and_of_half_equal_sides():
    values = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    assert calibration(values, values).overlap == pytest.approx(1)
    far = [value * 1000 for value in values[:3]]
    assert calibration(values, values[:3] + far).overlap == pytest.approx(0.5)


def test_threshold_lets_through_as_many_real_images_as_asked():
    real = [float(value) for value in range(1, 21)]
    found = calibration([0.1] * 5, real)
    for rate in (0.0, 0.05, 0.1, 0.5, 1.0):
        assert sum(value < found.threshold(rate) for value in real) == round(rate * 20)
    assert found.threshold(1.0) == math.inf


def test_what_lies_beyond_all_real_images_exceeds_real():
    found = calibration([0.1] * 5, [1.0, 2, 3, 4, 5])
    assert [found.exceeds_real(distance) for distance in (0.1, 5.0, 5.1)] == [False, False, True]


@pytest.fixture(scope="module")
def separable():
    """Own images have distances around 0.01, real ones around 1; 50 of each."""
    own = [0.01 * value for value in lognormal(50, 0, seed=0)]
    return calibration(own, lognormal(50, 0, seed=1))


def test_networks_are_weighed_against_each_other_and_against_none(separable):
    verdict = decide([separable, separable], [0.01, 1.0])
    first, second = (separable.probability(distance) for distance in (0.01, 1.0))
    odds = first / (1 - first), second / (1 - second)
    assert verdict.best == 0
    assert verdict.probabilities[0] == pytest.approx(odds[0] / (1 + sum(odds)))
    assert verdict.none + sum(verdict.probabilities) == pytest.approx(1)
    assert verdict.is_certain
    neither = decide([separable, separable], [1.0, 1.0])
    assert neither.best is None
    assert not neither.is_undecided
    both = decide([separable, separable], [0.01, 0.011])  # cannot tell which
    assert both.best is not None
    assert not both.is_certain


def test_p_values_are_ranks_among_the_images_of_the_calibration():
    found = calibration([1.0, 2, 3, 4, 4.2], [5.0, 6, 7, 8, 9])
    ranks = [found.own_p_value(distance) for distance in (0.5, 2.5, 4, 4.5)]
    assert ranks == [1, 4 / 6, 3 / 6, 1 / 6]
    assert [found.real_p_value(distance) for distance in (4, 5, 7.5, 9)] == [1 / 6, 2 / 6, 4 / 6, 1]


@pytest.mark.parametrize("num", [5, 12, 19, 40])
@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_at_most_one_in_twenty_own_images_is_denied(num, shift):
    """Also where both kinds have the same distances, and with few images."""
    denied = certain = 0
    runs = 200
    for seed in range(runs):
        own, real = (
            lognormal(num + 1, 0, seed=2 * seed),
            lognormal(num + 1, shift, seed=2 * seed + 1),
        )
        found = calibration(own[:-1], real[:-1])
        verdict = decide([found], own[-1:])
        denied += verdict.best is None and not verdict.is_undecided
        verdict = decide([found], real[-1:])
        certain += verdict.best is not None and verdict.is_certain
    allowed = 0.05 if num >= 19 else 0.0
    margin = 3 * math.sqrt(allowed * (1 - allowed) / runs)
    assert denied / runs <= allowed + margin
    assert certain / runs <= allowed + margin


def test_few_images_leave_a_distant_image_undecided():
    for num, is_undecided in ((18, True), (19, False)):
        own = [0.01 * value for value in lognormal(num, 0, seed=0)]
        found = calibration(own, lognormal(50, 0, seed=1))
        verdict = decide([found], [1e6])
        assert verdict.best is None
        assert verdict.is_undecided is is_undecided


def test_own_images_that_are_further_than_real_ones_decide_nothing():
    found = calibration([2.0, 3, 4, 5, 6], [1.0, 1.1, 1.2, 1.3, 1.4])
    assert [found.probability(distance) for distance in (0.1, 1.2, 4, 100)] == [0.5] * 4
    assert decide([found], [1.0]).is_undecided


def test_bound_of_false_positives_is_that_of_clopper_and_pearson():
    fifty = calibration([0.1] * 5, [float(value) for value in range(50)])
    # none of 50: 1 - 0.05 ** (1 / 50); 2 of 50: the binomial tail P(X <= 2) is 5 %
    assert fifty.false_positive_bound(0.0) == pytest.approx(1 - 0.05 ** (1 / 50))
    bound = fifty.false_positive_bound(0.05)
    tail = sum(math.comb(50, k) * bound**k * (1 - bound) ** (50 - k) for k in range(3))
    assert tail == pytest.approx(0.05)
    assert fifty.false_positive_bound(1.0) == 1
    assert calibration([0.1] * 5, [1.0] * 5).false_positive_bound(0.05) > 0.4


def test_own_images_draw_noise_after_z_from_the_same_stream(generator):
    image, noise = image_with_seeded_noise(generator, 7)
    stream = np.random.RandomState(7)
    z = stream.randn(1, generator.z_dim)
    for layer, stored in noise_maps(generator).items():
        np.testing.assert_allclose(noise[layer].numpy(), stream.randn(*stored.shape), rtol=1e-6)
    with_stored = generator(torch.from_numpy(z).float())
    assert image.shape == with_stored.shape
    assert not torch.allclose(image, with_stored)
    assert torch.equal(image, image_with_seeded_noise(generator, 7)[0])


def test_own_images_of_a_network_without_noise():
    network = stylegan.create("progan", 16, channel_base=64).generator.eval()
    image, noise = image_with_seeded_noise(network, 3)
    assert noise == {}
    assert image.shape == (1, 3, 16, 16)


def test_a_calibration_survives_json():
    found = calibration(lognormal(9, 0, seed=0), lognormal(8, 1, seed=1))
    content = json.loads(json.dumps(found.to_json()))
    again = Calibration.from_json(content)
    assert again == found
    assert content["area_under_curve"] == found.area


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"version": 2, "own": [], "real": []}, {"version": 1, "own": ["a"], "real": []}],
)
def test_what_is_no_calibration_is_refused(content):
    with pytest.raises(DataError):
        Calibration.from_json(content)


@pytest.mark.parametrize(
    ("own", "real"), [([1.0] * 4, [1.0] * 9), ([1.0] * 5, [math.nan] * 5), ([-1.0] * 5, [1.0] * 5)]
)
def test_too_few_and_impossible_distances_are_refused(own, real):
    with pytest.raises(DataError):
        calibration(own, real)


def test_edges_hold_every_value():
    own, real = [0.0, 0.1], [5.0, 5.0]
    edges = histogram_edges(own, real)
    assert len(edges) == 31
    assert np.histogram([1e-8, 0.1, 5.0, 5.0], edges)[0].sum() == 4
