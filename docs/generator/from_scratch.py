"""Where training from scratch loses return, and what was tried."""

from collections.abc import Iterable, Mapping
from math import ceil
from statistics import mean
from typing import Any

import numpy as np

from sb3_sparse.sweeps.report.statistics import Floats, estimate_mean
from sb3_sparse.sweeps.report.study import AGENT, Group

from .grids import comparison, comparisons, dense_agents
from .markdown import estimate, interval, number, percent, table
from .stored import require, stored

_EIGHT = "8 bits"
_TASKS = ("HalfCheetah-v4", "Walker2d-v4", "Hopper-v4")


def from_scratch() -> list[str]:
    """
    :return: Paragraphs
    """
    return [_rewired(), *_pruned(), *_distilled(), _starved(), _ppo(), _scores()]


def _rewired() -> str:
    """RigL on HalfCheetah, in two grids."""
    own = comparison("engine-long", env="HalfCheetah-v4", recipe="rigl", sparsity=0.95, engine=True).group
    others, later = (
        comparison("sac_from_scratch-full", env="HalfCheetah-v4", recipe="rigl", sparsity=0.95, hyperparams=changes).group
        for changes in ([], ["learning_starts:10000"])
    )
    returns = sorted([*own.returns, *others.returns])
    dense = dense_agents("HalfCheetah-v4")
    require(returns[-1] < mean(dense), "RigL at 95 % returns less than dense agents")
    require([value < 2000 for value in others.returns] == [True, True], "two agents of RigL at 95 % run on their backs")
    return (
        f"SAC on HalfCheetah with RigL at {percent(0.95)} in actor and critics returns {_list(returns)} after"
        f" {number(own.results[0]['steps'])} steps, in the runs of two grids; dense {_list(dense)}. The two below"
        " 2,000 run on their backs, as the angle of their torso says; these agents are not stored. They learn from step 100"
        " on, as SB3's agents do by default. With rl-zoo3's setting for this task, `learning_starts:10000`,"
        f" {_seeds(later, others)}."
    )


def _seeds(later: Group, others: Group) -> str:
    """What the same seeds return with and without a change."""
    before = {result["settings"]["seed"]: value for result, value in zip(others.results, others.returns, strict=True)}
    words = []
    for result, value in zip(later.results, later.returns, strict=True):
        seed = result["settings"]["seed"]
        require(seed in before and value > 3 * before[seed], "a seed of RigL that fell returns more if it learns later")
        words.append(f"seed {seed} returns {number(value)} instead of {number(before[seed])}")
    require(bool(words), "RigL was trained with a later start of learning")
    return " and ".join(words)


def _pruned() -> list[str]:
    """Runs of a million steps, pruned gradually: text and table."""
    rows, lost, undecided = [], [], []
    for env in _TASKS:
        found = comparison("sac_from_scratch-full", _EIGHT, env=env, recipe="gmp_both", sparsity=None)
        assert found.difference is not None
        best = [_best(result) for result in found.group.results]
        fallen = [last for last, top in zip(found.group.returns, best, strict=True) if last < top / 2]
        require(bool(fallen) == (env == "Hopper-v4"), "of these agents only Hopper's have fallen below half of their best")
        difference = estimate(found.difference.value, found.difference.interval)
        rows.append((env, _list(found.group.returns), _list(best), _list(dense_agents(env)), difference))
        if found.loses:
            lost.append(env)
        elif not found.decides:
            undecided.append(env)
    steps = found.group.results[0]["steps"]
    require(lost == ["HalfCheetah-v4"], "gradual pruning of SAC loses return on HalfCheetah, and on no other task for certain")
    require(undecided == ["Walker2d-v4", "Hopper-v4"], "the dense agents of Walker2d and Hopper do not decide")
    text = (
        "SAC, pruned gradually to 5 % of the actor's weights and 20 % of the critics' in"
        f" {number(steps)} steps, each number a seed. The last agent counts, and on Hopper not every seed's is near its best."
        " On HalfCheetah this is a loss. On Walker2d and Hopper dense agents differ so much among each other that these few"
        " cannot decide."
    )
    head = ("task", "returns, 8 bits", "best evaluation in training", "dense", "difference")
    return [text, table(head, rows, align="lllll")]


def _distilled() -> list[str]:
    """The dense agents that the pruned ones are compared with, distilled: text and table."""
    rows, left_open = [], []
    for env in _TASKS:
        dense, rounded = (_means(env, form, None) for form in (AGENT, _EIGHT))
        for sparsity in (0.95, 0.98):
            students = _means(env, _EIGHT, sparsity)
            if len(students) == len(dense) > 1:
                found = estimate_mean(students - dense)
                difference = estimate(found.value, found.interval)
                rows.append((env, percent(sparsity), _list(dense), _list(rounded), _list(students), difference))
                assert found.interval is not None
                if sparsity == 0.95:
                    require(found.interval[0] < 0.0 < found.interval[1], "at 95 % nothing is lost for certain")
                    left_open.append(-found.interval[0] / mean(dense))
    require(len(left_open) == len(_TASKS), "of all tasks the dense agents have students")
    longer, shorter = (
        comparisons(grid)[0].group.settings["episodes"] for grid in ("distilled_agents-scratch", "sac_from_scratch-full")
    )
    text = (
        "These dense agents, [distilled](distilled_agents-scratch.md) after their training, in 8 bits; for each a student or"
        " the mean of two. Differences are of each student to its own teacher, with Student's interval. The"
        f" dense agents have {longer} episodes here and {shorter} above, and one that falls in some of them has another mean."
        f" At {percent(0.95)} the interval contains zero on all {len(_TASKS)} tasks, and excludes losses of more than"
        f" {percent(ceil(100 * max(left_open)) / 100)} of the dense return."
    )
    head = ("task", "sparsity", "dense", "dense, 8 bits", "students, 8 bits", "difference")
    return [text, table(head, rows, align="llllll")]


def _means(env: str, form: str, sparsity: float | None) -> Floats:
    """Of each dense agent, or of its students."""
    groups = [each.group for each in comparisons("distilled_agents-scratch")]
    fitting = [group for group in groups if (group.settings["env"], group.form, group.sparsity) == (env, form, sparsity)]
    return np.array([group.returns.mean() for group in fitting if group.results])


def _starved() -> str:
    """Critics that keep as little as the actor."""
    starved, fed = (
        comparison("sac_from_scratch-full", _EIGHT, env="Hopper-v4", recipe=recipe, sparsity=sparsity).group.results[0]
        for recipe, sparsity in (("gmp_both", 0.98), ("gmp_both_98", None))
    )
    finals = [mean(result["evaluations"][_EIGHT]["returns"]) for result in (starved, fed)]
    require(finals[0] < _best(starved) / 2 < 1000, "with critics of 2 % the agent of Hopper learns little, and falls")
    require(finals[1] < _best(fed) / 2, "with critics of 20 % it learns, and falls as well")
    return (
        f"With 2 % in the critics as well as in the actor, Hopper returns {number(finals[0])} in the end (best evaluation"
        f" {number(_best(starved))}), and with 2 % in the actor and 20 % in the critics {number(finals[1])}"
        f" ({number(_best(fed))}), one seed each."
    )


def _best(result: Mapping[str, Any]) -> float:
    return max(mean(values) for values in result["curve"]["returns"])


def _list(returns: Iterable[float]) -> str:
    return ", ".join(map(number, returns))


def _ppo() -> str:
    """Another algorithm, whose dense control is at hand."""

    def returns(env: str, sparsity: float) -> list[float]:
        return [
            float(value) for value in comparison("ppo_from_scratch-full", _EIGHT, env=env, sparsity=sparsity).group.returns
        ]

    dense, *pruned = (returns("HalfCheetah-v4", sparsity) for sparsity in (0.0, 0.95, 0.98))
    require(max(map(max, pruned)) < min(dense), "pruned PPO returns less than dense PPO on HalfCheetah")
    found = comparison("ppo_from_scratch-full", _EIGHT, env="HalfCheetah-v4", sparsity=0.95)
    require(found.loses is True, "gradual pruning in PPO loses return at 95 %")
    hopper = [returns("Hopper-v4", sparsity) for sparsity in (0.0, 0.98)]
    require(max(map(max, hopper)) < 1100, "PPO does not learn to hop, dense or pruned")
    words = list(map(_list, (dense, *pruned, *hopper)))
    return (
        "PPO on HalfCheetah, with the hidden layers of actor and critic pruned gradually, all in 8 bits after a million steps,"
        f" returns {words[1]} at 95 % and {words[2]} at 98 %, and {words[0]} dense. On Hopper dense PPO stands still"
        f" ({words[3]}), and so does that of 98 % ({words[4]}), so nothing can be compared there."
    )


def _scores() -> str:
    """What the weights are ranked by."""
    sac = stored("ablation")["sac"]
    low, high = sac["difference"]
    require(low < 0 < high, "fisher and magnitude do not differ in reinforcement learning")
    return (
        "Ranking weights by `fisher` instead of magnitude in gradual pruning of SAC makes no difference on HalfCheetah that"
        f" three seeds of {number(sac['steps'])} steps could show: {interval(sac['difference'])}."
    )
