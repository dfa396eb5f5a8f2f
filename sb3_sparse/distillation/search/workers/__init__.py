"""Who works for a search: the work itself, and the processes that take it piece by piece."""

from sb3_sparse.distillation.search.workers.crew import Crew, Work
from sb3_sparse.distillation.search.workers.workshop import Trial, Workshop

__all__ = ["Crew", "Trial", "Work", "Workshop"]
