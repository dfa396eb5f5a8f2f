"""What a policy takes on a microcontroller, compiled for it and run on an emulator of it."""

from sb3_sparse.export.boards.board import BOARDS, Board, check_tools, describe_tools
from sb3_sparse.export.boards.measuring import DoesNotFit, Taken, compile_policy, measure_policy, section_bytes

__all__ = [
    "BOARDS",
    "Board",
    "DoesNotFit",
    "Taken",
    "check_tools",
    "compile_policy",
    "describe_tools",
    "measure_policy",
    "section_bytes",
]
