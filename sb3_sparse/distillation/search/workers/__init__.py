"""Who works for a search: the work itself, and the processes that take it piece by piece, here or on a cluster."""

from sb3_sparse.distillation.search.workers.crew import Crew
from sb3_sparse.distillation.search.workers.hiring import count_jobs, hire
from sb3_sparse.distillation.search.workers.trial import Trial
from sb3_sparse.distillation.search.workers.worker import Work
from sb3_sparse.distillation.search.workers.workshop import Workshop

__all__ = ["Crew", "Trial", "Work", "Workshop", "count_jobs", "hire"]
