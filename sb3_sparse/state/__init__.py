"""The state that is saved with a model so that a run can be resumed, its restoring, and the seeds of random draws."""

from sb3_sparse.state.clock import Clock
from sb3_sparse.state.identity import Identity
from sb3_sparse.state.restore import restore
from sb3_sparse.state.run import Run
from sb3_sparse.state.saved_grids import SavedGrid, save_grid, saved_grids
from sb3_sparse.state.seeding import draw_generator, first_seed
from sb3_sparse.state.sparsity_state import SparsityState, TopologyRow, has_state, saved_bits, saved_inputs
from sb3_sparse.state.written_inputs import round_inputs

__all__ = [
    "Clock",
    "Identity",
    "Run",
    "SavedGrid",
    "SparsityState",
    "TopologyRow",
    "draw_generator",
    "first_seed",
    "has_state",
    "restore",
    "round_inputs",
    "save_grid",
    "saved_bits",
    "saved_grids",
    "saved_inputs",
]
