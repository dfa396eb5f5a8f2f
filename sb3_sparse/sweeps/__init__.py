"""
Grids of runs, from a laptop to a cluster: ``sb3-sparse benchmark``.

A **grid** is a YAML file, in ``benchmarks/grids/`` or anywhere else:

    title: One sentence that says what is measured
    kind: zoo                                   # finetune, distill, or a class of your own; also a setting of an axis
    fixed: {algo: ppo, env: CartPole-v1, recipe: gmp, steps: 100000}
    axes:                                       # the cells are the product of these lists
      sparsity: [0.0, 0.9]
      task:                                     # an entry that is a mapping sets several settings at once
        - {env: CartPole-v1, steps: 100000}
        - {env: HalfCheetah-v4, steps: 1000000}
      seed: [0, 1, 2]
    sizes:                                      # smaller ones than the whole grid, which is "full"
      smoke: {fixed: {steps: 1000}, axes: {seed: [0]}}
    report: {}                                  # for the report; not read here

Seeds vary fastest, whatever the order of the axes: the first cells are all seeds of one setting.

A **cell** is one setting of everything. Its name is a hash of its settings (those that differ from their defaults), of the
recipe's hyperparameters for its environment or of the agent's bytes, of the version of this package, and of the module of its
kind in ``sweeps/kinds/``. It is not a hash of the whole package: each commit would make every finished cell void. Versions of
other packages and the commit are in the result.

The **folder** of a sweep (``logs/sweeps``) may hold the results of many grids, which share their cells:

    results/NAME.json      the result of one finished cell
    lock                   held while what runners share is written
    grids.json             the titles of the grids whose tables are here
    cells/NAME/            log.txt, lock, deaths.json, progress.json, checkpoints, the trained agent
    GRID-SIZE.csv          the results of one grid in long form

A **result** is plain JSON:

    name          hash of the cell
    kind          as the grid says
    settings      all settings of the cell, defaults included
    content       hash of the recipe's hyperparameters, or of the agent
    evaluations   by form of the agent, "agent" for SB3's predict and "8 bits" for the exported policy: "returns" and "lengths"
                  of each episode, which have the same seeds for all cells; of an exported policy also "nbytes"
    curve         "steps" [n] and "returns" [n][episodes] of the evaluations during training; both may be empty
    networks      by network: "nonzero", "total", "active_neurons", "neurons"
    steps         environment steps, or updates of an algorithm on recorded data
    seconds, cpu_seconds    what the cell took, with attempts that died; null if it was imported
    origin        "versions", "commit" (null outside of a checkout, with "+" if files were changed), "machine", "time", and
                  "imported" of a result that was made elsewhere: from where

A cell that died and went on has the same result as one that did not, but for ``seconds``, ``cpu_seconds`` and ``origin``.

The **CSV** has one row per episode: name, the settings that are not the same for all cells, form, phase ("training" or
"final"), steps, episode, return, length, and cpu_seconds, commit, version, machine of the cell.

**Stored** results are those that a repository keeps, ``GRID-SIZE.jsonl`` with one line for each cell: see
:mod:`sb3_sparse.sweeps.stored`.

    from sb3_sparse.sweeps import Folder, read_grid

    grid = read_grid("smoke")
    folder = Folder(Path("logs/sweeps"))
    results = {cell: folder.read(cell.name) for cell in grid.cells}      # None for a cell that is missing
"""

from sb3_sparse.sweeps.folder import Folder, NoRoomError
from sb3_sparse.sweeps.grid import Grid, read_grid
from sb3_sparse.sweeps.kinds import KINDS, Cell
from sb3_sparse.sweeps.stored import Stored

__all__ = ["KINDS", "Cell", "Folder", "Grid", "NoRoomError", "Stored", "read_grid"]
