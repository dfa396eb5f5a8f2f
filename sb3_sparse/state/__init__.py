"""What is saved with a model so that a run can be resumed, how it is restored, and the seeds of random draws."""

from sb3_sparse.state.restore import SavedLayers, restore
from sb3_sparse.state.seeding import draw_generator, first_seed
from sb3_sparse.state.state import SparsityState, saved_bits

__all__ = ["SavedLayers", "SparsityState", "draw_generator", "first_seed", "restore", "saved_bits"]
