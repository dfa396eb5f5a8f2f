"""The mathematics: conformance over the tables, properties over random cases, golden numbers."""

import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_sparse.sparsity import (
    DISTRIBUTIONS,
    MOMENTS,
    SALIENCIES,
    SCHEDULES,
    Cosine,
    Cubic,
    check_choice,
    erdos_renyi,
    erk,
    find_distribution,
    global_,
    magnitude,
    magnitude_by_sign,
    prune,
    prune_to,
    random,
    rewire,
)

shapes = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)),
)
networks = st.lists(shapes, min_size=1, max_size=6)


def make_scores(shapes, seed, ties=False):
    """Random scores; with ties, most of them are equal."""
    rng = np.random.default_rng(seed)
    draw = (lambda s: rng.integers(0, 3, s).astype(np.float32)) if ties else (lambda s: rng.normal(size=s).astype(np.float32))
    return {f"layer{i}": th.from_numpy(draw(shape)) for i, shape in enumerate(shapes)}


def total_of(scores):
    return sum(score.numel() for score in scores.values())


# ---------------------------------------------------------------- schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_values(name):
    schedule = SCHEDULES[name](final=0.5, initial=0.1, start=0.2, end=0.8)
    assert (
        schedule
        == eval(repr(schedule), {kind.__name__: kind for kind in SCHEDULES.values()})
        == pickle.loads(pickle.dumps(schedule))
    )
    values = [schedule(p) for p in np.linspace(0, 1, 101)]
    assert values == sorted(values) and all(0.1 <= value <= 0.5 for value in values)
    assert schedule(0.19) == 0.1 and schedule(0.8) == schedule(1.0) == 0.5, "exact on both sides of the window"


def test_cubic_golden():
    """Zhu & Gupta, eq. 1, at the paper's window: 600 prunings from 200k to 800k of 1M steps, to 98 %."""
    schedule = Cubic(0.98, start=0.2, end=0.8)
    points = [0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0]
    golden = [0.0, 0.0, 0.5665625, 0.8575, 0.9646875, 0.98, 0.98]
    assert [schedule(p) for p in points] == pytest.approx(golden, abs=1e-9)


def test_cubic_agrees_with_torch():
    """torch.ao.pruning's CubicSL is an oracle for the formula."""
    pruning = pytest.importorskip("torch.ao.pruning")
    ours = Cubic(0.9, initial=0.1)
    for step in range(11):
        theirs = pruning.CubicSL.sparsity_compute_fn(s_0=0.1, s_f=0.9, t=step, t_0=0, dt=1, n=10)
        assert ours(step / 10) == pytest.approx(float(theirs), abs=1e-9)


def test_schedule_in_steps_equals_schedule_in_shares():
    assert Cubic(0.9, start=200, end=800)(400) == pytest.approx(Cubic(0.9, start=0.2, end=0.8)(0.4))


def test_cosine_golden():
    assert [Cosine(initial=0.3)(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(
        [0.3, 0.15 * (1 + math.sqrt(0.5)), 0.15, 0.0]
    )


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_window_without_length_is_a_step(schedule):
    step = schedule(final=0.9, initial=0.1, start=0.5, end=0.5)
    assert [step(p) for p in (0.0, 0.49, 0.5, 1.0)] == [0.1, 0.1, 0.9, 0.9]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_must_not_end_before_it_starts(schedule):
    with pytest.raises(ValueError, match="must not end before it starts"):
        schedule(0.9, start=0.8, end=0.2)


# ---------------------------------------------------------------- saliencies


@pytest.mark.parametrize("saliency", SALIENCIES.values(), ids=SALIENCIES)
def test_saliencies_conform(saliency):
    weights = {"a": th.randn(4, 3, requires_grad=True), "b": th.randn(2, 4, 3, 3, requires_grad=True)}
    before = {name: weight.detach().clone() for name, weight in weights.items()}

    def loss():
        return sum(weight.pow(3).mean() for weight in weights.values()) + weights["a"].tanh().sum() ** 2

    moments = {name: th.rand_like(weight) for name, weight in weights.items()}
    given = {"second_moments": moments} if saliency.__name__ in MOMENTS else {}
    scores = saliency(weights, loss, generator=th.Generator().manual_seed(0), **given)
    again = saliency(weights, loss, generator=th.Generator().manual_seed(0), **given)
    for name, weight in weights.items():
        assert scores[name].shape == weight.shape
        assert scores[name].isfinite().all()
        assert not scores[name].requires_grad
        assert weight.grad is None
        assert th.equal(weight, before[name])
        assert th.equal(scores[name], again[name])


@settings(max_examples=200, deadline=None)
@given(shapes, st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_magnitude_by_sign_drops_the_same_share_of_both_signs(shape, seed, fraction, bias, ties):
    """Also if the signs are unequally many, and among weights most of which are pruned; to one weight of each sign."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 4, shape) if ties else np.abs(rng.normal(size=shape)) + 1e-3
    weight = th.from_numpy(values * np.where(rng.random(shape) < bias, 1.0, -1.0))
    mask = th.from_numpy(rng.random(shape) < 0.5)
    weight *= mask
    scores = magnitude_by_sign({"a": weight})["a"]
    assert (scores[~mask] == 0).all() and (scores[mask] > 0).all()
    active = int(mask.sum())
    moved = math.floor(fraction * active + 1e-9)
    kept = prune({"a": mask}, {"a": scores}, {"a": active - moved})["a"]
    for sign in (1, -1):
        same = mask & (weight.sign() == sign)
        dropped = same & ~kept
        assert abs(int(dropped.sum()) - fraction * int(same.sum())) <= 1 + 1e-6
        if dropped.any() and (same & kept).any():
            assert weight[dropped].abs().max() <= weight[same & kept].abs().min()


def test_magnitude_by_sign_golden():
    """A drop of a quarter takes 0.1 and 0.2 of eight positive weights, and one of four negative ones, however large."""
    weight = th.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, -9.0, -8.0, 0.0, -7.0, -6.0, -0.0])
    scores = magnitude_by_sign({"a": weight})
    assert scores["a"].tolist() == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 1, 0.75, 0, 0.5, 0.25, 0]
    rewired = rewire({"a": weight != 0}, scores, {"a": (weight == 0).float()}, 0.25)["a"]
    assert [i for i, kept in enumerate(rewired.tolist()) if not kept] == [1, 12]
    assert magnitude_by_sign({"a": th.tensor([1.0, th.nan])})["a"].isnan().tolist() == [False, True]


# ---------------------------------------------------------------- distributions


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@settings(max_examples=400, deadline=None)
@given(networks, st.floats(0, 0.999), st.integers(0, 2**32 - 1), st.booleans())
def test_budgets_are_exact(distribution, shapes, sparsity, seed, ties):
    scores = make_scores(shapes, seed, ties)
    budget = round((1 - sparsity) * total_of(scores))
    if budget < len(scores):
        with pytest.raises(ValueError, match="largest feasible sparsity is"):
            distribution(scores, sparsity)
        return
    keep = distribution(scores, sparsity)
    assert list(keep) == list(scores)
    assert sum(keep.values()) == budget
    assert all(1 <= keep[name] <= score.numel() for name, score in scores.items())
    assert all(type(count) is int for count in keep.values())


@pytest.mark.quick("erk", "global_")
@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@settings(max_examples=150, deadline=None)
@given(networks, st.lists(st.floats(0, 0.95), min_size=2, max_size=8), st.integers(0, 2**32 - 1), st.booleans())
def test_gradual_pruning_is_exact_and_nested(distribution, shapes, sparsities, seed, ties):
    """Along a rising sequence of sparsities, with weights that move in between, the masks are nested and the counts exact."""
    masks = {name: th.ones_like(score, dtype=th.bool) for name, score in make_scores(shapes, seed).items()}
    for step, sparsity in enumerate(sorted(sparsities)):
        weights = make_scores(shapes, [seed, step], ties)
        budget = round((1 - sparsity) * total_of(weights))
        if budget < len(weights):
            return
        pruned = prune_to(weights, masks, sparsity, saliency=SALIENCIES["magnitude"], distribution=distribution)
        assert sum(int(mask.sum()) for mask in pruned.values()) == budget
        assert all(not (mask & ~masks[name]).any() for name, mask in pruned.items())
        again = prune_to(weights, pruned, sparsity, saliency=SALIENCIES["magnitude"], distribution=distribution)
        assert all(th.equal(again[name], mask) for name, mask in pruned.items())
        masks = pruned


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@settings(max_examples=200, deadline=None)
@given(networks, st.floats(0, 0.95), st.floats(0, 0.95), st.integers(0, 2**32 - 1))
def test_no_alabama_paradox(distribution, shapes, one, other, seed):
    """A higher sparsity never gives a layer more weights."""
    scores = make_scores(shapes, seed)
    if round((1 - max(one, other)) * total_of(scores)) < len(scores):
        return
    low, high = distribution(scores, min(one, other)), distribution(scores, max(one, other))
    assert all(high[name] <= low[name] for name in scores)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_what_is_pruned_further_stays_so(distribution):
    """A budget above the active weights keeps them all: pruning cannot revive."""
    scores = {"a": th.randn(10, 10), "b": th.randn(10, 10)}
    scores["a"].view(-1)[5:] = -th.inf
    assert distribution(scores, 0.1) == {"a": 5, "b": 100}


#: Shapes (out, in) of 256-256 networks, and the layer densities that follow from the definition of ERK at each sparsity.
HALFCHEETAH_ACTOR = [(256, 17), (256, 256), (6, 256)]
HALFCHEETAH_CRITIC = [(256, 23), (256, 256), (1, 256)]
ERK_GOLDEN = [
    (HALFCHEETAH_ACTOR, 0.5, (1, 0.455, 1)),
    (HALFCHEETAH_ACTOR, 0.9, (0.448, 0.056, 1)),
    (HALFCHEETAH_ACTOR, 0.95, (0.214, 0.027, 0.582)),
    (HALFCHEETAH_ACTOR, 0.98, (0.086, 0.011, 0.233)),
    (HALFCHEETAH_ACTOR, 0.99, (0.043, 0.005, 0.117)),
    (HALFCHEETAH_CRITIC, 0.9, (0.414, 0.068, 1)),
    (HALFCHEETAH_CRITIC, 0.95, (0.199, 0.033, 1)),
    (HALFCHEETAH_CRITIC, 0.98, (0.071, 0.012, 1)),
    (HALFCHEETAH_CRITIC, 0.99, (0.032, 0.005, 0.688)),
    ([(256, 11), (256, 256), (3, 256)], 0.9, (0.748, 0.062, 1)),
    ([(256, 11), (256, 256), (3, 256)], 0.99, (0.063, 0.005, 0.225)),
    ([(256, 105), (256, 256), (8, 256)], 0.9, (0.114, 0.066, 1)),
    ([(256, 348), (256, 256), (17, 256)], 0.9, (0.078, 0.089, 0.718)),
    ([(256, 17), (256, 256), (6, 256), (6, 256)], 0.99, (0.035, 0.004, 0.095, 0.095)),
]


@pytest.mark.parametrize(("shapes", "sparsity", "densities"), ERK_GOLDEN)
def test_erk_golden(shapes, sparsity, densities):
    """Three decimals, and one weight for rounding to integers."""
    scores = {str(i): th.ones(shape) for i, shape in enumerate(shapes)}
    keep = erk(scores, sparsity)
    for (name, score), density in zip(scores.items(), densities, strict=True):
        assert abs(keep[name] / score.numel() - density) <= 5e-4 + 1 / score.numel()


@pytest.mark.parametrize(
    ("shapes", "sparsity", "expected"),
    [
        ([(2, 4), (3, 6, 7), (7, 4)], 0.5, (0.0, 0.64, 0.0)),
        ([(2, 4), (3, 6), (2, 4, 6)], 0.5, (0.0, 0.31, 0.655)),
        ([(2, 4), (3, 6), (2, 4, 6)], 0.8, (0.556, 0.70, 0.85)),
    ],
)
def test_erk_agrees_with_jaxpruner(shapes, sparsity, expected):
    """The table of jaxpruner's tests, to the nearest weight: its layers are tiny, and our counts are integers."""
    scores = {str(i): th.ones(shape) for i, shape in enumerate(shapes)}
    keep = erk(scores, sparsity)
    for (name, score), share in zip(scores.items(), expected, strict=True):
        assert abs(keep[name] - (1 - share) * score.numel()) <= 1.0


def hidden(inputs, branches=1):
    """The hidden layers of 256-256 branches, which DS-TD3 makes sparse."""
    shapes = {"0": (256, inputs), "2": (256, 256)}
    return {f"qf{branch}.{name}": th.ones(shape) for branch in range(branches) for name, shape in shapes.items()}


def test_erdos_renyi_counts_of_ds_td3():
    """Sokar et al.: lambda = (7, 64), dense output: 106,169 connections of HalfCheetah's TD3 in expectation."""
    actor = sum(erdos_renyi(hidden(17), lambdas=(7, 64)).values()) + 6 * 256
    critics = erdos_renyi(hidden(23, branches=2), lambdas=(7, 64))
    assert critics == {"qf0.0": 1953, "qf0.2": 32_768, "qf1.0": 1953, "qf1.2": 32_768}
    assert actor == 36_215
    assert sum(critics.values()) + 2 * 256 == 2 * 34_977
    assert actor + sum(critics.values()) + 2 * 256 == 106_169


@pytest.mark.parametrize("lambdas", [(7, 64), (40, 64), (7, 300)])
def test_erdos_renyi_as_the_authors_draw(lambdas):
    """Every weight exists with probability p, independently: the counts are those of a binomial distribution."""
    weights = hidden(23, branches=2)
    masks = {name: th.ones_like(weight, dtype=th.bool) for name, weight in weights.items()}
    distribution = partial(erdos_renyi, lambdas=lambdas, counts="bernoulli")
    deviations = []
    for seed in range(40):
        draws = random(weights, generator=th.Generator().manual_seed(seed))
        drawn = prune_to(
            weights, masks, 0.0, saliency=random, distribution=distribution, generator=th.Generator().manual_seed(seed)
        )
        for (name, weight), factor in zip(weights.items(), lambdas * 2, strict=True):
            n_out, n_in = weight.shape
            p = min(1.0, factor * (n_in + n_out) / (n_in * n_out))
            assert th.equal(drawn[name], draws[name] >= 1 - p)
            sigma = math.sqrt(p * (1 - p) * weight.numel())
            deviation = int(drawn[name].sum()) - p * weight.numel()
            # Six sigma for one of 160 draws: they are seeded, and none may be far out.
            assert abs(deviation) <= 6 * sigma
            deviations += [deviation / sigma] if sigma else []
    # Three sigma for their mean; that of the squares of n standard normal numbers has variance 2 / n.
    assert abs(np.mean(deviations)) <= 3 / math.sqrt(len(deviations))
    assert abs(np.mean(np.square(deviations)) - 1) <= 3 * math.sqrt(2 / len(deviations))


def test_erdos_renyi_draws_within_three_sigma():
    """DS-TD3's HalfCheetah actor and critics: 106,169 in expectation, sigma 229.9."""
    for seed in range(5):
        generator = th.Generator().manual_seed(seed)
        connections, variance = 8 * 256, 0.0
        for network in (hidden(17), hidden(23, branches=2)):
            draws = random(network, generator=generator)
            connections += sum(erdos_renyi(draws, lambdas=(7, 64), counts="bernoulli").values())
            for factor, draw in zip((7, 64) * (len(draws) // 2), draws.values(), strict=True):
                p = factor * sum(draw.shape) / draw.numel()
                variance += p * (1 - p) * draw.numel()
        assert math.sqrt(variance) == pytest.approx(229.9, abs=0.1)
        assert abs(connections - 106_169) <= 3 * math.sqrt(variance)


def test_erdos_renyi_draws_are_uniform_ones():
    bernoulli = partial(erdos_renyi, lambdas=(1,), counts="bernoulli")
    for scores in ([[-0.1, 0.5]], [[1.0, 0.5]], [[th.inf, 0.5]]):
        with pytest.raises(ValueError, match=r"needs scores drawn from .* those of layer 'a' are not: use saliency 'random'"):
            bernoulli({"a": th.tensor(scores)})
    # What is pruned stays so, and a layer that the draws would empty keeps one weight.
    assert bernoulli({"a": th.tensor([[-th.inf, -th.inf, 0.99, 0.5]])}) == {"a": 2}
    assert bernoulli({"a": th.zeros(100, 100)}) == {"a": 1}
    with pytest.raises(ValueError, match="needs lambdas"):
        erdos_renyi({"a": th.rand(2, 2)}, 0.5, counts="bernoulli")
    with pytest.raises(ValueError, match="unknown counts='about': use one of exact, bernoulli"):
        erdos_renyi({"a": th.rand(2, 2)}, lambdas=(1,), counts="about")


def test_erdos_renyi_lambdas():
    scores = {"a": th.ones(10, 10), "conv": th.ones(4, 2, 3, 3)}
    assert erdos_renyi(scores, lambdas=(2, 0.5)) == {"a": 40, "conv": 27}
    assert erdos_renyi(scores, lambdas=(100, 100)) == {"a": 100, "conv": 72}
    for wrong in ((1,), (1, 0), (1, -1), (1, 2, 3), (), 1, "12", (1, "2"), (1, math.nan), (1, math.inf)):
        with pytest.raises(ValueError, match="one positive lambda"):
            erdos_renyi(scores, lambdas=wrong)
    with pytest.raises(ValueError, match="needs a sparsity or lambdas"):
        erdos_renyi(scores)


def test_erdos_renyi_repeats_lambdas_over_equal_branches_alone():
    """With its output layers a twin critic has six layers, a multiple of two, and its lambdas would go astray."""
    critic = {f"qf{i}.{j}": th.ones(shape) for i in range(2) for j, shape in enumerate([(256, 23), (256, 256), (1, 256)])}
    with pytest.raises(ValueError, match="if all branches have the same shapes"):
        erdos_renyi(critic, lambdas=(7, 64))
    assert list(erdos_renyi(critic, lambdas=(7, 64, 1)).values()) == [1953, 32_768, 256] * 2
    for wrong in ((7,), (7, 64, 7), (7, 64, 7, 64, 7)):
        with pytest.raises(ValueError, match="one positive lambda"):
            erdos_renyi(hidden(23, branches=2), lambdas=wrong)


def test_find_distribution():
    assert find_distribution("erk") is erk
    assert find_distribution(global_) is global_
    assert find_distribution({"erk": {}}) is erk
    fixed = find_distribution({"erdos_renyi": {"lambdas": [7, 64], "counts": "bernoulli"}})
    assert isinstance(fixed, partial)
    assert (fixed.func, fixed.keywords) == (erdos_renyi, {"lambdas": (7, 64), "counts": "bernoulli"})


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("x", "unknown distribution 'x': use one of uniform, erdos_renyi, erk, global_"),
        ({"x": {}}, "unknown distribution 'x'"),
        ({"erk": {}, "uniform": {}}, r"one name with its arguments, got \['erk', 'uniform'\]"),
        ({}, r"one name with its arguments, got \[\]"),
        ({"erk": {"lambdas": [1]}}, "distribution 'erk' has no arguments; got {'lambdas'"),
        ({"erdos_renyi": {"lambda": [1]}}, "'erdos_renyi' has these arguments, by name: lambdas, counts; got {'lambda'"),
        ({"erdos_renyi": {"scores": [1]}}, "has these arguments"),
        ({"erdos_renyi": [7, 64]}, r"has these arguments, by name: lambdas, counts; got \[7, 64\]"),
        ({"erdos_renyi": None}, "has these arguments, by name: lambdas, counts; got None"),
        (None, "a mapping of one name to its arguments, or a function, got None"),
    ],
)
def test_find_distribution_errors(chosen, message):
    with pytest.raises(ValueError, match=message):
        find_distribution(chosen)


def test_what_goes_together():
    fixed = partial(erdos_renyi, lambdas=(7, 64))
    assert check_choice(erk, 0.9, magnitude) == check_choice(partial(erdos_renyi), 0.9, magnitude) == 0.9
    assert check_choice(fixed, None, magnitude) == 0.0
    for distribution in (erk, erdos_renyi, partial(erk), partial(erdos_renyi)):
        with pytest.raises(ValueError, match="sparsity=None needs a distribution whose counts are fixed"):
            check_choice(distribution, None, random)
    for sparsity in (0.0, 0.9, 1):
        with pytest.raises(
            ValueError, match=rf"lambdas=\(7, 64\) fix the .* sparsity={sparsity} must not be given: give sparsity=None"
        ):
            check_choice(fixed, sparsity, random)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), got 1"):
        check_choice(erk, 1, random)
    drawn = partial(fixed, counts="bernoulli")
    assert check_choice(drawn, None, random) == check_choice(drawn, None, lambda weights, loss=None: weights) == 0.0
    for saliency in (magnitude, magnitude_by_sign):
        with pytest.raises(ValueError, match="use saliency 'random'"):
            check_choice(drawn, None, saliency)


def test_global_equals_union_ranking():
    scores = make_scores([(20, 10), (30, 20), (5, 5, 3, 3)], 0)
    flat = th.cat([score.flatten() for score in scores.values()])
    threshold = flat.sort(descending=True).values[round(0.2 * flat.numel()) - 1]
    assert global_(scores, 0.8) == {name: int((score >= threshold).sum()) for name, score in scores.items()}


def test_global_never_empties_a_layer():
    scores = {"large": th.rand(100, 100) + 1, "small": th.rand(2, 100) * 1e-6}
    assert global_(scores, 0.99)["small"] == 1
    scores["large"][:] = th.inf
    assert global_(scores, 0.99)["small"] == 1


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5])
def test_sparsity_outside_its_range(distribution, sparsity):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        distribution({"a": th.ones(2, 2)}, sparsity)


def test_the_largest_feasible_sparsity_is_feasible():
    scores = {str(i): th.ones(3, 5) for i in range(7)}
    with pytest.raises(ValueError, match="largest feasible sparsity is") as error:
        erk(scores, 0.99)
    largest = float(str(error.value).rsplit(" ", 1)[1])
    assert sum(erk(scores, largest).values()) == 7


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_no_layers_and_nan(distribution):
    with pytest.raises(ValueError, match="no layer to prune"):
        distribution({}, 0.5)
    with pytest.raises(ValueError, match="layer 'a' contain NaN"):
        distribution({"a": th.tensor([[1.0, th.nan]])}, 0.5)


# ---------------------------------------------------------------- masks


@settings(max_examples=300, deadline=None)
@given(shapes, st.integers(0, 2**32 - 1), st.booleans(), st.data())
def test_prune_keeps_exactly_the_best(shape, seed, ties, data):
    scores = make_scores([shape], seed, ties)
    mask = {"layer0": th.from_numpy(np.random.default_rng(seed).random(shape) < 0.7)}
    active = int(mask["layer0"].sum())
    count = data.draw(st.integers(0, active))
    kept = prune(mask, scores, {"layer0": count})["layer0"]
    assert int(kept.sum()) == count
    assert not (kept & ~mask["layer0"]).any()
    dropped = mask["layer0"] & ~kept
    if kept.any() and dropped.any():
        assert scores["layer0"][kept].min() >= scores["layer0"][dropped].max()


def test_prune_is_deterministic_on_ties():
    assert prune({"a": th.ones(5, dtype=th.bool)}, {"a": th.zeros(5)}, {"a": 2})["a"].tolist() == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_prune_takes_any_score_of_a_weight_that_exists():
    """Even -inf and the lowest finite number rank above what is pruned already."""
    mask = th.tensor([False, True, True])
    for lowest in (-th.inf, th.finfo(th.float32).min):
        assert prune({"a": mask}, {"a": th.tensor([5.0, lowest, lowest])}, {"a": 2})["a"].equal(mask)


def test_prune_refuses_to_revive():
    with pytest.raises(ValueError, match="never revives"):
        prune({"a": th.tensor([True, False])}, {"a": th.rand(2)}, {"a": 2})
    with pytest.raises(ValueError, match="do not fit"):
        prune({"a": th.tensor([True, False])}, {"a": th.rand(3)}, {"a": 1})
    with pytest.raises(ValueError, match="NaN"):
        prune({"a": th.tensor([True, False])}, {"a": th.tensor([th.nan, 1.0])}, {"a": 1})


@settings(max_examples=300, deadline=None)
@given(networks, st.floats(0, 1), st.integers(0, 2**32 - 1), st.booleans())
def test_rewire_keeps_every_count(shapes, fraction, seed, ties):
    drop, grow = make_scores(shapes, [seed, 0], ties), make_scores(shapes, [seed, 1], ties)
    rng = np.random.default_rng(seed)
    masks = {name: th.from_numpy(rng.random(tuple(score.shape)) < 0.4) for name, score in drop.items()}
    rewired = rewire(masks, drop, grow, fraction)
    for name, mask in masks.items():
        active = int(mask.sum())
        assert int(rewired[name].sum()) == active
        assert int((mask & rewired[name]).sum()) >= active - math.floor(fraction * active + 1e-9)


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.0, [0, 1, 0, 1, 0, 1, 1, 0]),
        (0.25, [1, 1, 0, 1, 0, 1, 0, 0]),
        (0.5, [1, 1, 0, 0, 1, 1, 0, 0]),
        (0.75, [1, 0, 1, 0, 1, 1, 0, 0]),
        (1.0, [1, 0, 1, 0, 1, 1, 0, 0]),
    ],
)
def test_rewire_golden(fraction, expected):
    """The RigL example of jaxpruner's tests: growth excludes the survivors, not the old mask."""
    mask = th.tensor([0, 1, 0, 1, 0, 1, 1, 0], dtype=th.bool)
    weight = th.tensor([-9.0, 1, 4, -1, 5, 8, -2, 3])
    assert rewire({"w": mask}, {"w": weight}, {"w": weight.abs()}, fraction)["w"].int().tolist() == expected


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_rewire_fraction_outside_its_range(fraction):
    with pytest.raises(ValueError, match=r"fraction must lie in \[0, 1\]"):
        rewire({"a": th.ones(2, dtype=th.bool)}, {"a": th.rand(2)}, {"a": th.rand(2)}, fraction)
