"""
The sides of ``offline_speed.py``, each in its own process: d3rlpy and stable_baselines3 want different gymnasiums.

    python -m benchmarks.speed.offline_workers engine | torch | d3rlpy

A worker makes its learners, and then makes as many updates as it is told to, see ``workers.py``.
"""

import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch as th

from benchmarks.shared.workers import Learn, serve

TRANSITIONS, EPISODE, OBSERVATION, ACTION = 100_000, 1000, 17, 6
BATCH, LEARNING_RATE, SPARSITY = 100, 1e-3, 0.95
#: Units of the hidden layers, of a latent variable of 2 x ACTION, and of actions of which a target takes the best.
HEADS, VAE, CLONE, SAMPLES = [400, 300], [750, 750], [256, 256], 10


def make_data() -> dict[str, np.ndarray]:
    """Random episodes of HalfCheetah's size: what is timed does not depend on their values."""
    rng = np.random.default_rng(0)
    flags = np.arange(1, TRANSITIONS + 1) % EPISODE == 0
    return {
        "observations": rng.normal(size=(TRANSITIONS, OBSERVATION)).astype(np.float32),
        "actions": rng.uniform(-1.0, 1.0, size=(TRANSITIONS, ACTION)).astype(np.float32),
        "rewards": rng.normal(size=TRANSITIONS).astype(np.float32),
        "truncations": flags,
    }


def make_ours(in_engine: bool) -> dict[str, Learn]:
    """``learn`` as a user calls it, with callbacks, clock and log, from its first update on: it starts once in a run."""
    from gymnasium import spaces
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Logger

    from sb3_sparse import EngineCallback, OneShotPruningCallback
    from sb3_sparse.offline import BC, BCQ, OfflineDataset

    arrays = make_data()
    data = OfflineDataset.from_arrays(
        **arrays,
        next_observations=np.roll(arrays["observations"], -1, axis=0),
        terminations=np.zeros(TRANSITIONS, dtype=bool),
        observation_space=spaces.Box(-np.inf, np.inf, (OBSERVATION,)),
        action_space=spaces.Box(-1.0, 1.0, (ACTION,)),
    )
    shared = {"learning_rate": LEARNING_RATE, "batch_size": BATCH, "seed": 0, "device": "cpu"}

    def bcq() -> BCQ:
        arch = {"actor": HEADS, "critic": HEADS, "vae": VAE}
        return BCQ("MlpPolicy", data, n_target_actions=SAMPLES, policy_kwargs={"net_arch": arch}, **shared)

    def bc(mode: str, arch: list[int]) -> BC:
        return BC("MlpPolicy", data, mode=mode, policy_kwargs={"net_arch": arch}, **shared)

    class Ticks(BaseCallback):
        """The CPU time at which each update was done."""

        #: So the engine need not write the weights for it.
        holds_layers = False

        def _on_training_start(self) -> None:
            self.ticks: list[float] = []

        def _on_step(self) -> bool:
            self.ticks.append(time.process_time())
            return True

    def learner(model: BC | BCQ, sparse: bool) -> Learn:
        ticks = Ticks()
        callbacks: list[BaseCallback] = [OneShotPruningCallback("all", SPARSITY, saliency="snip")] if sparse else []
        callbacks += [EngineCallback(strict=True)] if in_engine else []
        model.set_logger(Logger(folder=None, output_formats=[]))

        def learn(updates: int) -> float:
            model.learn(1 + updates, callback=[*callbacks, ticks], reset_num_timesteps=False)
            return (ticks.ticks[-1] - ticks.ticks[0]) / updates

        return learn

    makers = {"bcq": bcq, "bc_mlp": lambda: bc("mlp", CLONE), "bc_vae": lambda: bc("vae", VAE)}
    kinds = {"dense": False, f"sparse/{SPARSITY}": True}
    return {f"{name}/{kind}": learner(make(), sparse) for name, make in makers.items() for kind, sparse in kinds.items()}


def make_d3rlpy() -> dict[str, Learn]:
    """What ``fit`` does in every step, sampling and update, without its progress bar, log and evaluation."""
    from d3rlpy.algos import BCConfig, BCQConfig
    from d3rlpy.dataset import MDPDataset
    from d3rlpy.models import VectorEncoderFactory

    arrays = make_data()
    data = MDPDataset(
        observations=arrays["observations"],
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        terminals=np.zeros(TRANSITIONS, dtype=np.float32),
        timeouts=arrays["truncations"].astype(np.float32),
    )
    rates = {f"{network}_learning_rate": LEARNING_RATE for network in ("actor", "critic", "imitator")}
    sizes = {"actor": HEADS, "critic": HEADS, "imitator": VAE}
    encoders = {f"{network}_encoder_factory": VectorEncoderFactory(units) for network, units in sizes.items()}
    bcq = {"batch_size": BATCH, "n_action_samples": SAMPLES, "compile_graph": False, **rates, **encoders}
    configs = {
        "bcq": BCQConfig(**bcq),
        # Before this step BCQ trains its VAE alone.
        "bc_vae": BCQConfig(rl_start_step=10**9, **bcq),
        "bc_mlp": BCConfig(
            batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            encoder_factory=VectorEncoderFactory(CLONE),
            compile_graph=False,
        ),
    }

    def learner(config: BCConfig | BCQConfig) -> Learn:
        algorithm = config.create(device="cpu:0")
        algorithm.build_with_dataset(data)

        def learn(updates: int) -> float:
            algorithm.update(data.sample_transition_batch(BATCH))
            begin = time.process_time()
            for _ in range(updates):
                algorithm.update(data.sample_transition_batch(BATCH))
            return (time.process_time() - begin) / updates

        return learn

    return {name: learner(config) for name, config in configs.items()}


#: By name: what makes the learners, and the packages that it is about.
SIDES: dict[str, tuple[Callable[[], dict[str, Learn]], tuple[str, ...]]] = {
    "engine": (lambda: make_ours(in_engine=True), ("torch",)),
    "torch": (lambda: make_ours(in_engine=False), ("torch",)),
    "d3rlpy": (make_d3rlpy, ("d3rlpy", "torch", "numpy", "gymnasium")),
}


def main() -> None:
    """Serve the side that the command line names."""
    th.set_num_threads(1)
    make, packages = SIDES[sys.argv[1]]
    versions = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    serve(lambda: (make(), versions))


if __name__ == "__main__":
    main()
