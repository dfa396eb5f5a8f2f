"""
Makes the checkpoints and exported files that tests/test_compatibility.py resumes, loads and compares. In a checkout of the
version that they are to come from (copy this folder into its tests if it has none):

    python -m tests.data.make <name of its commit>

The files go into tests/data/<name>: for each run a checkpoint in its middle and what resuming it led to; for each exported
policy its file and what it computed.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from tests.data.exports import EXPORTS, HEADER, export
from tests.data.facts import actions, facts, machine, numbers
from tests.data.runs import RUNS, begin, restored, resume


def main(name: str) -> None:
    """
    :param name: Name of the folder.
    """
    th.set_num_threads(1)
    folder = Path(__file__).parent / name
    folder.mkdir()
    expected: dict[str, Any] = {"machine": machine(), "saved": {}, "resumed": {}}
    for key, run in RUNS.items():
        path = folder / key
        begin(run, path)
        saved, resumed = restored(run, path), resume(run, path)
        expected["saved"][key], expected["resumed"][key] = facts(saved), facts(resumed)
        np.savez_compressed(folder / f"{key}.npz", saved_actions=actions(saved), **numbers(resumed))
    for key in EXPORTS:
        np.savez_compressed(folder / f"{key}.npz", **export(key, folder, folder))
        if key != HEADER:
            (folder / f"{key}.h").unlink()
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
