"""
Small agents to run that were sparse from the first step of their training: the runs of a grid as compact files.

    sb3-sparse benchmark run sac_from_scratch --folder logs/sweeps
    python -m benchmarks.size.trained --folder logs/sweeps --json benchmarks/results/trained.json

Of each task the smallest file of 8 bits is chosen whose agent returns at least as much as the dense ones of the grid, or, if
they are fewer than two, as the published one. Where none does, the agent is chosen that returns most. All this is by the
episodes of the stored results. The agent is exported once more, calibrated on its own episodes, and plays fresh ones, which
nothing was chosen on. The files are written to ``--out``.
"""

import hashlib
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.store import Result
from sb3_sparse import compress
from sb3_sparse.agents import Player, open_agent, play, play_observations
from sb3_sparse.sweeps import Folder, Stored, read_grid
from sb3_sparse.sweeps.kinds import Zoo
from sb3_sparse.sweeps.kinds.evaluation import CALIBRATED, FIRST_CALIBRATED
from sb3_sparse.sweeps.report.published import Published, read_published
from sb3_sparse.sweeps.report.statistics import estimate_mean
from sb3_sparse.sweeps.report.study import Study
from sb3_sparse.zoo.beside import folder_of

GRID, BITS, FORM = "sac_from_scratch", 8, "8 bits"
RESULTS = Path("benchmarks/results")
#: The seed of the first of the fresh episodes.
FRESH = 5_000_000


def choose(study: Study, published: Published) -> Iterator[tuple[Zoo, dict[str, Any]]]:
    """
    :param study: A grid and its results.
    :param published: Returns of dense agents.
    :return: Of each task the cell that is chosen, and its result
    """
    for task in study.tasks:
        found = [
            (cell, result)
            for cell in study.grid.cells
            if isinstance(cell, Zoo) and cell.env == task and cell.sparsity != 0.0 and (result := study.results.get(cell.name))
        ]
        control = study.control(study.select(task=task)[0])
        assert control is not None
        other = published.stand_in(control)
        dense = control.returns.mean() if other is None else other["mean"]
        keeping = [each for each in found if _return(each[1]) >= dense]
        if found:
            yield (
                min(keeping, key=lambda each: each[1]["evaluations"][FORM]["nbytes"])
                if keeping
                else max(found, key=lambda each: _return(each[1]))
            )


def _return(result: dict[str, Any]) -> float:
    return float(np.mean(result["evaluations"][FORM]["returns"]))


def find_run(cell: Zoo, folders: Sequence[Path]) -> Path:
    """
    :param cell: A cell of a grid.
    :param folders: Folders of ``sb3-sparse benchmark run``, whose cells may have the names of another version.
    :return: The folder of its training
    :raises ValueError: if there is none
    """
    for folder in folders:
        for file in sorted(folder.glob("results/*.json")):
            result = Folder(folder).read(file.stem)
            if result is not None and result["kind"] == cell.kind and Zoo.read(result["settings"]) == cell:
                return Folder(folder).cell_folder(file.stem) / "run" / cell.algo / f"{folder_of(cell.env)}_1"
    raise ValueError(f"there is no finished training of {cell} in {', '.join(map(str, folders))}")


def export(cell: Zoo, run: Path, file: Path, episodes: int) -> dict[str, Any]:
    """
    :param cell: A cell of a grid.
    :param run: The folder of its training.
    :param file: Where its compact file is written.
    :param episodes: Number of fresh episodes.
    :return: Bytes, weights, returns
    """
    agent = open_agent(run / f"{folder_of(cell.env)}.zip", env=cell.env, algorithm=cell.algo)
    assert agent.venv is not None
    observations = play_observations(agent.venv, agent.act, CALIBRATED, FIRST_CALIBRATED)
    policy = compress(agent.model, BITS, observations, normalization=agent.normalization)
    policy.save(file)
    player, seeds = Player(policy), range(FRESH, FRESH + episodes)
    returns = np.array([[total for _, total in play(agent.venv, player, seed)][-1] for seed in seeds])
    agent.venv.close()
    mean = estimate_mean(returns)
    return {
        "nbytes": policy.nbytes,
        "weights": sum(layer.nonzero_after for layer in policy.report().layers),
        "return": round(mean.value, 1),
        "interval": None if mean.interval is None else [round(end, 1) for end in mean.interval],
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def measure(args: Namespace) -> Result:
    """
    :param args: Folders of runs, episodes, and where the files are written.
    :return: By name of the file: what the card says
    """
    grid, published = read_grid(GRID), read_published("rl_zoo3_sac")
    study = Study(grid, Stored(grid, RESULTS))
    result: Result = {"agents": {}, "episodes": args.episodes, "grid": GRID}
    args.out.mkdir(parents=True, exist_ok=True)
    for cell, found in choose(study, published):
        name = f"{cell.algo}-{cell.env}-sparse"
        own = export(cell, find_run(cell, args.folder), args.out / f"{name}.sb3s", args.episodes)
        shares = {key: network["nonzero"] / network["total"] for key, network in found["networks"].items()}
        result["agents"][name] = {
            **{"env": cell.env, "algorithm": cell.algo.upper(), "recipe": cell.recipe, "sparsity": cell.sparsity},
            **{"seed": cell.seed, "steps": found["steps"], "cpu_minutes": round(found["cpu_seconds"] / 60, 1)},
            **{"weights left": {key: round(share, 4) for key, share in shares.items()}, **own},
        }
    return result


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    rows = [(name, own["recipe"], own["seed"], own["nbytes"], own["return"]) for name, own in result["agents"].items()]
    yield table("", ("agent", "recipe", "seed", "bytes", "return"), rows)


if __name__ == "__main__":
    ask(
        measure,
        option("--folder", [Path("logs/sweeps")], "where the runs of the grid are kept; may be several", type=Path, nargs="+"),
        option("--episodes", 50, "fresh ones", quick=2),
        option("--out", Path("docs/results/agents"), "where the files are written", quick=Path("logs/trained_quick")),
        show=show,
        quick="few episodes",
    )
