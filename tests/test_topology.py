"""What is told of a topology: against masks that were kept by hand, after a break, in a zip and in the log."""

from pathlib import Path

import pytest
import torch as th
from stable_baselines3.common.logger import configure

from sb3_sparse import RewiringCallback, summarize
from sb3_sparse.callbacks import topology_history
from tests.algorithms import CASES
from tests.rewirings import Rewirings, rewiring, sparse_model


def by_hand(steps, masks, network):
    """The history of a network, out of its masks before and after every rewiring."""
    layers = [name for name in masks[0] if name.split(".")[0] == network]
    total = sum(masks[0][name].numel() for name in layers)
    history = {"timestep": steps, "explored": [], "churn": [], "active_neurons": []}
    for number in range(1, len(masks)):
        ever = {name: th.stack([mask[name] for mask in masks[: number + 1]]).any(dim=0) for name in layers}
        old, new = masks[number - 1], masks[number]
        kept = sum(int(new[name].sum()) for name in layers)
        history["explored"].append(sum(int(mask.sum()) for mask in ever.values()) / total)
        history["churn"].append(sum(int((new[name] & ~old[name]).sum()) for name in layers) / kept)
        history["active_neurons"].append(sum(int(new[name].flatten(1).any(dim=1).sum()) for name in layers))
    return history


@pytest.mark.quick("td3-random-stock", "sac-gradient-sparse", "dqn-gradient-stock", "ppo-random-sparse")
@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize(("name", "grow"), [("td3", "random"), ("sac", "gradient"), ("dqn", "gradient"), ("ppo", "random")])
def test_history(name, grow, sparse, tmp_path):
    """Over two runs with a zip in between, which loads and tells it without training."""
    first, second = Rewirings(), Rewirings()
    model = sparse_model(name, sparse)
    model.learn(64, callback=[*rewiring(sparse, grow=grow), first])
    model.save(tmp_path / "agent.zip")
    loaded = CASES[name].algorithm.load(tmp_path / "agent.zip", env=CASES[name].make().get_env(), device="cpu")
    assert topology_history(loaded) == topology_history(model)
    second.masks.append(first.masks[-1])
    loaded.learn(70, callback=[*rewiring(sparse, grow=grow), second], reset_num_timesteps=False)
    history = topology_history(loaded)
    assert tuple(history) == CASES[name].networks
    for network in CASES[name].networks:
        assert history[network] == by_hand(first.steps + second.steps, first.masks + second.masks[1:], network)
        # A new weight counts here, and is no nonzero weight yet.
        assert history[network]["active_neurons"][-1] >= summarize(loaded).networks[network].active_neurons


def test_more_is_explored_as_time_goes_by():
    model = CASES["sac"].make()
    model.learn(150, callback=rewiring(fraction=0.5))
    explored = topology_history(model)["critic"]["explored"]
    assert explored == sorted(explored) and 0.5 < explored[0] < explored[-1] <= 1.0


def test_models_without_a_history():
    model = CASES["sac"].make()
    assert topology_history(model) == {}
    assert "sparsity_state" not in model.__dict__, "looking changes nothing"
    model.learn(20, callback=rewiring()[0])
    assert topology_history(model) == {}


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_log(grow, tmp_path):
    model = CASES["sac"].make(train_freq=5)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(450, log_interval=1, callback=rewiring(network="critic", grow=grow, update_freq=50))
    model.logger.close()
    lines = [line.split(",") for line in Path(tmp_path / "progress.csv").read_text().splitlines()]
    last = dict(zip(lines[0], lines[-1], strict=True))
    history = topology_history(model)["critic"]
    number = history["timestep"].index(350)
    for key in ("explored", "churn", "active_neurons"):
        assert float(last[f"sparsity/critic_{key}"]) == pytest.approx(history[key][number], rel=1e-6), key
    assert float(last["sparsity/critic"]) == pytest.approx(0.5, abs=0.01)


def test_verbose(capsys):
    model = CASES["sac"].make()
    model.learn(41, callback=[rewiring()[0], RewiringCallback(["actor", "critic"], 0.3, 10, verbose=1)])
    history = topology_history(model)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Rewiring")]
    churns = zip([30, 40], history["actor"]["churn"], history["critic"]["churn"], strict=True)
    assert lines == [
        *(
            f"RewiringCallback: step {step}, replaced of actor {actor:.4f}, critic {critic:.4f}"
            for step, actor, critic in churns
        ),
        "RewiringCallback: stopped at step 41, rewired actor 2 times, critic 2 times",
    ]


def test_a_history_goes_forward():
    """Also when rl-zoo3 counts its steps from zero and a callback with other arguments goes on."""
    model = CASES["sac"].make()
    model.learn(61, callback=rewiring())
    model.learn(61, callback=rewiring(fraction=0.2))
    assert topology_history(model)["critic"]["timestep"] == [30, 40, 50, 60, 90, 100, 110, 120]


ROW = [30, 5, 100, 120, 200, 16]


@pytest.mark.parametrize(
    "damaged",
    [
        {"topology": None},
        {"topology": {"critic": None}},
        {"topology": {"critic": [ROW[:5]]}},
        {"topology": {"critic": [[*ROW, 1]]}},
        {"topology": {"critic": [[30, 5, "100", 120, 200, 16]]}},
        {"topology": {"critic": [[30, 5, 100.0, 120, 200, 16]]}},
        {"topology": {"critic": [[30, 0, 0, 0, 0, 16]]}},
        {"topology": {"critic": [[30, 5, 100, 120, 119, 16]]}},
        {"topology": {"critic": [[30, -5, 100, 120, 200, 16]]}},
        {"explored": []},
    ],
)
def test_damaged_history(damaged):
    model = CASES["sac"].make()
    model.sparsity_state = {"topology": {"critic": [ROW]}}
    assert topology_history(model)["critic"] == {"timestep": [30], "explored": [0.6], "churn": [0.05], "active_neurons": [16]}
    model.sparsity_state = damaged
    with pytest.raises(ValueError, match="saved sparsity_state of this model is damaged"):
        topology_history(model)
    with pytest.raises(ValueError, match="saved sparsity_state of this model is damaged"):
        model.learn(20, callback=RewiringCallback("all"))


@pytest.mark.parametrize("damage", [lambda text: text[:-3], lambda text: "!" + text[1:], lambda text: 7, lambda text: None])
def test_damaged_exploration(damage):
    """One error before the first step, and nothing is lost."""
    model = sparse_model("sac", True)
    model.learn(41, callback=rewiring(True))
    explored = model.sparsity_state["explored"]
    explored["critic.qf0.2"] = damage(explored["critic.qf0.2"])
    saved = dict(explored)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"the saved mask of layer 'critic\.qf0\.2'"):
            model.learn(41, callback=rewiring(True))
        assert model.num_timesteps == 0
    assert explored == saved
