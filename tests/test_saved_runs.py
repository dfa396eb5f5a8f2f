"""Which saved run a callback continues: by class, network and name; other arguments are compared."""

import warnings

import pytest

from sb3_sparse import DelayedMultiStepCallback, GradualPruningCallback, OneShotPruningCallback, QATCallback, RewiringCallback
from sb3_sparse.state.identity import Identity, find_run
from tests.algorithms import CASES


class Shrink:
    """Stands for a callback that has been given another argument since a run was saved."""

    def __init__(self, network, share, added="default", name=None):
        pass


def identity(share=0.5, added="default", **who):
    return Identity(Shrink, {"network": ["actor"], **who}, {"share": share, "added": added})


CLOCK = {"timestep": 7, "at": 20}


def test_an_argument_that_was_added_later_has_its_default():
    old = "Shrink(network=['actor'], share=0.5)"
    assert find_run(identity(), {old: CLOCK}) == (old, None)
    key, changes = find_run(identity(added="other"), {old: CLOCK})
    assert key == "Shrink(network=['actor'], share=0.5, added='other')"
    assert changes == "added='other' (saved: 'default')"


class Mine(GradualPruningCallback):
    """A user's subclass that passes its arguments on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


def test_a_subclass_has_the_defaults_of_its_base():
    arguments = {"final_sparsity": 0.9, "schedule": "cubic"}
    old = "Mine(network=['actor'], final_sparsity=0.9)"
    assert find_run(Identity(Mine, {"network": ["actor"]}, arguments), {old: CLOCK}) == (old, None)


def test_values_that_are_not_literals_are_compared_as_text():
    function = "Mine(network=['actor'], score=<lambda>)"
    assert find_run(Identity(Mine, {"network": ["actor"]}, {"score": print}), {function: CLOCK})[1] is None


def test_the_same_arguments_come_first():
    exact = identity().key
    assert find_run(identity(), {"Shrink(network=['actor'], share=0.5)": CLOCK, exact: CLOCK}) == (exact, None)


@pytest.mark.parametrize(
    "key",
    [
        "Shrink(network=['critic'], share=0.9)",
        "Shrink(network=['actor'], name='second', share=0.9)",
        "Grow(network=['actor'], share=0.9)",
        "Shrink(network=['actor'], share=",
        "Shrink(network=[actor], share=0.9)",
        "Shrink(['actor'], share=0.9)",
        "nn.Shrink(network=['actor'], share=0.9)",
        "",
        "(" * 1000,
    ],
)
def test_other_runs_are_left_alone(key):
    """Of another network, name or class, or damaged."""
    assert find_run(identity(), {key: CLOCK}) == (identity().key, None)


@pytest.mark.parametrize(
    ("clock", "unfinished"),
    [
        ({"timestep": 19, "at": 20, "updates": 0}, True),
        ({"timestep": 30, "at": 20, "updates": 0}, True),
        ({"timestep": 30, "at": 20, "updates": 1}, False),
        ({"timestep": 59, "start": 20, "end": 60, "updates": 3}, True),
        ({"timestep": 60, "start": 20, "end": 60, "updates": 5}, False),
        ({"timestep": 60, "start": 0, "n_updates": 5, "updates": 5}, False),
        ({"timestep": 40, "start": 0, "stop": 50, "n_updates": 5, "updates": 5}, True),
        ({"timestep": 60, "start": 0, "stop": 50, "n_updates": 5, "updates": 5}, False),
        ({"at": 20, "updates": 0}, False),
    ],
)
def test_changes_are_reported_of_runs_that_have_not_ended(clock, unfinished):
    _, changes = find_run(identity(), {identity(share=0.9).key: clock})
    assert changes == ("share=0.5 (saved: 0.9)" if unfinished else None)


def forget(model, *arguments):
    """Make the saved keys what they were before a class had these arguments."""
    clocks = model.sparsity_state["callbacks"]
    for key, clock in list(clocks.items()):
        del clocks[key]
        for argument in arguments:
            assert f", {argument}" in key
            key = key.replace(f", {argument}", "")
        clocks[key] = clock


def test_a_pruning_window_stays_where_it_was(tmp_path):
    """A run of 200 steps is stopped at 90, and goes on with a class that has learnt an argument since."""
    case = CASES["sac"]
    model = case.make()
    model.learn(90, callback=GradualPruningCallback("actor", 0.9, start=40, end=160, update_freq=10))
    forget(model, "schedule='cubic'")
    (old,) = model.sparsity_state["callbacks"]
    model.save(tmp_path / "agent")
    resumed = case.algorithm.load(tmp_path / "agent", env=model.get_env())
    resumed.learn(110, GradualPruningCallback("actor", 0.9, start=40, end=160, update_freq=10), reset_num_timesteps=False)
    ((key, clock),) = resumed.sparsity_state["callbacks"].items()
    assert key == old and (clock["start"], clock["end"], clock["timestep"]) == (40, 160, 200)
    assert set(resumed.sparsity_state["makers"].values()) == {old}


@pytest.mark.parametrize(
    ("name", "before", "after", "change"),
    [
        (
            "sac",
            lambda: GradualPruningCallback("actor", 0.9, start=10, end=80, update_freq=10),
            lambda: GradualPruningCallback("actor", 0.95, start=10, end=90, update_freq=10),
            r"starts anew on actor, .* final_sparsity=0.95 \(saved: 0.9\), end=90 \(saved: 80\)",
        ),
        (
            "sac",
            lambda: OneShotPruningCallback("actor", 0.9, at=80),
            lambda: OneShotPruningCallback("actor", 0.9, at=70),
            r"at=70 \(saved: 80\)",
        ),
        (
            "dqn",
            lambda: QATCallback("q_net", start=80),
            lambda: QATCallback("q_net", start=80, bits=4),
            r"bits=4 \(saved: 8\)",
        ),
        (
            "td3",
            lambda: RewiringCallback("actor", update_freq=10, stop=100),
            lambda: RewiringCallback("actor", update_freq=20, stop=100),
            r"update_freq=20 \(saved: 10\)",
        ),
        (
            "td3_steps",
            lambda: DelayedMultiStepCallback(80),
            lambda: DelayedMultiStepCallback(90),
            r"DelayedMultiStepCallback starts anew, .* start=90 \(saved: 80\)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:actor. dense, so there is nothing to rewire", "ignore:fraction=.* is less than one")
def test_a_change_in_the_middle_of_a_run_is_reported(name, before, after, change):
    model = CASES["td3"].make(n_steps=3) if name == "td3_steps" else CASES[name].make()
    model.learn(50, callback=before())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "actor: dense|fraction=")
        model.learn(2, callback=before(), reset_num_timesteps=False)
    with pytest.warns(UserWarning, match=change):
        model.learn(2, callback=after(), reset_num_timesteps=False)
    assert len(model.sparsity_state["callbacks"]) == 2


def test_names_keep_runs_apart(tmp_path):
    """Two phases of one network with the same arguments: the second has a clock of its own, also when resumed."""
    case = CASES["sac"]
    first, second = (lambda n=n: GradualPruningCallback("actor", 0.5, 0.2, 0.8, 10, name=n) for n in (None, "second"))
    model = case.make()
    model.learn(50, callback=first())
    model.learn(50, callback=[second()], reset_num_timesteps=False)
    windows = [(clock["start"], clock["end"]) for clock in model.sparsity_state["callbacks"].values()]
    assert windows == [(10, 40), (60, 90)]
    model.save(tmp_path / "agent")
    resumed = case.algorithm.load(tmp_path / "agent", env=model.get_env())
    resumed.learn(10, callback=[first(), second()], reset_num_timesteps=False)
    clocks = list(resumed.sparsity_state["callbacks"].values())
    assert [(clock["start"], clock["end"], clock["timestep"]) for clock in clocks] == [(10, 40, 110), (60, 90, 110)]


def test_two_of_a_class_in_one_list(tmp_path):
    """Each finds its own run again, by its arguments, and none is taken for a change of the other."""
    case = CASES["sac"]

    def callbacks():
        return [OneShotPruningCallback("actor", 0.5), OneShotPruningCallback("actor", 0.9, at=80)]

    model = case.make()
    model.learn(40, callback=callbacks())
    model.save(tmp_path / "agent")
    resumed = case.algorithm.load(tmp_path / "agent", env=model.get_env())
    resumed.learn(60, callback=callbacks(), reset_num_timesteps=False)
    clocks = list(resumed.sparsity_state["callbacks"].values())
    assert [(clock["at"], clock["updates"], clock["timestep"]) for clock in clocks] == [(0, 1, 100), (80, 1, 100)]


@pytest.mark.parametrize("name", [3, ["a"]])
def test_a_name_is_a_string(name):
    with pytest.raises(ValueError, match=r"name=.* must be a string"):
        QATCallback("actor", 0, name=name)
