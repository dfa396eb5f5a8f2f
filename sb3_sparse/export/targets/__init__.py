"""An exported policy as a project for a build system: the C header, and text around it."""

from sb3_sparse.export.targets.write import TARGETS, check_targets, write_target

__all__ = ["TARGETS", "check_targets", "write_target"]
