"""Results of cells that were never trained: their returns follow from their settings."""

from sb3_sparse.sweeps.grid import Grid
from sb3_sparse.sweeps.kinds import Zoo

TASKS, SPARSITIES, SEEDS = ("CartPole-v1", "HalfCheetah-v4"), (0.0, 0.5, 0.9, 0.99), (0, 1, 2)
#: Mean returns over a task's level; 0.5 is better than dense, 0.99 worse.
LEVELS = {"CartPole-v1": 400.0, "HalfCheetah-v4": 3000.0}
FACTORS = {0.0: 1.0, 0.5: 1.2, 0.9: 1.0, 0.99: 0.5, None: 2.0}


def cell(env, sparsity, seed, **settings):
    return Zoo(
        **{
            "algo": "ppo",
            "recipe": "gmp",
            "bits": (8,),
            "steps": 1000,
            "env": env,
            "sparsity": sparsity,
            "seed": seed,
            **settings,
        }
    )


def grid_of(cells, **report):
    return Grid("small", "Return & <sparsity>", "full", tuple(cells), {"sparsity": list(SPARSITIES)}, report)


def returns_of(settings, form):
    """Episodes 90 % and 110 % of the seed's mean; seeds 1 % apart."""
    mean = LEVELS.get(settings["env"], 1000.0) * FACTORS.get(settings["sparsity"], 0.7) * (1.0 + 0.01 * settings["seed"]) - (
        form != "agent"
    )
    return [0.9 * mean, 1.1 * mean]


def result_of(cell, **origin):
    settings = cell.settings
    forms = ("agent", *(f"{bits} bits" for bits in settings["bits"]))
    evaluations = {form: {"returns": returns_of(settings, form), "lengths": [100, 100]} for form in forms}
    for form in forms[1:]:
        evaluations[form]["nbytes"] = 1000 + settings["seed"]
    nonzero = round(1000 * (1 - (settings["sparsity"] or 0.0)))
    return {
        "name": cell.name,
        "kind": cell.kind,
        "settings": settings,
        "content": cell.content_hash,
        "evaluations": evaluations,
        "curve": {"steps": [500, 1000], "returns": [[0.0, 1.0], returns_of(settings, "agent")]},
        "networks": {"actor": {"nonzero": nonzero, "total": 1000, "active_neurons": 1, "neurons": 1}},
        "steps": 1000,
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "origin": {
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
            "commit": "0123456789ab",
            "machine": {"name": "host", "processor": "EPYC", "cores": 2},
            "time": "2026-01-01T00:00:00+00:00",
            **origin,
        },
    }


def publish(folder, cells, **origin):
    for each in cells:
        folder.publish(each.name, result_of(each, **origin))


def all_cells(tasks=TASKS, sparsities=SPARSITIES, seeds=SEEDS, **settings):
    return [cell(env, sparsity, seed, **settings) for env in tasks for sparsity in sparsities for seed in seeds]
