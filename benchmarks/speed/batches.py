"""
What a decision costs in a batch: CPU time per observation of ``predict``, beside the dense network in torch.

    python -m benchmarks.speed.batches --json benchmarks/results/batches.json

The papers' SAC actor (17-256-256-6), freshly initialised, with ERK shares of its largest weights, and its dense layers in
torch: ``tanh(mu(latent_pi(x)))`` on tensors, without SB3's ``predict`` around it. Rows are called "<sparsity in
%>/<backend>/<batch>", where "compiled" has float activations and "int8" rounds them to 8 bits. All live in one process on one
CPU and in one thread, and take turns in an order that is drawn anew in every round. A ratio is the median over the rounds of
torch's CPU time over that of the row for the same batch.
"""

import os
from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial
from time import process_time

if __name__ == "__main__":
    # Before numpy is there, whose matrix products take as many threads as these say.
    os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")})

import numpy as np
import torch as th
from stable_baselines3 import SAC

from benchmarks.deployment.mcu import export, fresh
from benchmarks.shared.question import ask, option, ratio_table
from benchmarks.shared.store import Result, describe_versions
from benchmarks.shared.turns import pin, summarize, take_turns
from sb3_sparse.runtime import Policy

SPARSITIES = (0.0, 0.5, 0.8, 0.95, 0.99)
SIZES = (1, 2, 4, 8, 16, 32, 64, 256, 1024, 4096)
#: Seconds of a turn.
TURN = 0.003


def forward(model: SAC, x: th.Tensor) -> th.Tensor:
    """
    :param model: The dense agent.
    :param x: Observations ``[n, 17]``.
    :return: Its actions ``[n, 6]``
    """
    with th.inference_mode():
        return th.tanh(model.actor.mu(model.actor.latent_pi(x)))


def seconds(call: Callable[[], object]) -> float:
    """
    :param call: What is timed, after one call that does not count.
    :return: CPU seconds of a call
    """
    call()
    begin, calls = process_time(), 0
    while (spent := process_time() - begin) < TURN:
        call()
        calls += 1
    return spent / max(calls, 1)


def measure(args: Namespace) -> Result:
    """
    :param args: The rounds, and whether to be quick.
    :return: Ratios to torch, and microseconds per observation
    """
    pin()
    th.set_num_threads(1)
    rng = np.random.default_rng(0)
    model, x = fresh(), rng.standard_normal((max(SIZES), 17)).astype(np.float32)
    sparsities, sizes = (SPARSITIES[-2:], SIZES[::4]) if args.quick else (SPARSITIES, SIZES)
    policies = {}
    for sparsity in sparsities:
        network = export(model, sparsity, x).network
        policies |= {f"{round(100 * sparsity)}/{name}": Policy(network, name) for name in ("compiled", "int8")}
    times, ratios = {}, {}
    for size in sizes:
        turns = {"torch": partial(seconds, partial(forward, model, th.as_tensor(x[:size])))}
        turns |= {name: partial(seconds, partial(policy.predict, x[:size])) for name, policy in policies.items()}
        found = take_turns(turns, args.rounds, rng, f"{size} observations")
        ratios |= {f"{name}/{size}": found["torch"] / values for name, values in found.items() if name != "torch"}
        times |= {f"{name}/{size}": round(1e6 * float(np.median(values)) / size, 3) for name, values in found.items()}
    return {
        **summarize(ratios, rng),
        "microseconds": times,
        "int8": policies[f"{round(100 * sparsities[0])}/int8"].backend,
        "rounds": args.rounds,
        "versions": describe_versions(),
    }


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    times = {name: f"{value:.2f}" for name, value in result["microseconds"].items()}
    yield ratio_table("actions per CPU second in batches", "over dense torch", result, {"us per observation": times})


if __name__ == "__main__":
    ask(measure, option("--rounds", 40, "rounds in which each has its turn", quick=3), show=show, quick="a few batches")
