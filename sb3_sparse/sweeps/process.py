"""
The process of one cell: ``python -m sb3_sparse.sweeps.process KIND SETTINGS NAME ROOT``.

It makes the cell and writes its result. It ends when its worker does: the worker holds the other end of its standard input.
"""

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from sb3_sparse.sweeps.folder import NO_ROOM, Folder, is_full
from sb3_sparse.sweeps.kinds import find_kind
from sb3_sparse.sweeps.kinds.messages import Messages
from sb3_sparse.sweeps.origin import describe_origin


def main(kind: str, settings: str, name: str, root: str) -> None:
    """
    :param kind: Kind of the cell.
    :param settings: Its settings, as JSON.
    :param name: The name that its runner has for it.
    :param root: Folder of the sweep.
    :raises RuntimeError: if the cell has another name here, because the code or a file has changed since the runner started
    """
    # rl-zoo3 would take Ctrl-C for the end of the training, and save what there is.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_worker, daemon=True).start()
    cell, folder = find_kind(kind).read(json.loads(settings)), Folder(Path(root))
    if cell.name != name:
        raise RuntimeError(f"the code, the recipe or the agent has changed since the sweep began: start it again ({cell})")
    place = folder.cell_folder(name)
    try:
        messages = Messages(place)
        origin = describe_origin()
        made = cell.make(place)
        identity = {"name": name, "kind": kind, "settings": cell.settings, "content": cell.content_hash}
        folder.publish(name, {**identity, **made, **messages.spent(), "origin": origin})
    except Exception as error:
        if is_full(error, place):
            os._exit(NO_ROOM)
        raise
    # The agent stays; what only an unfinished cell needs goes.
    for rest in place.glob("checkpoint*"):
        shutil.rmtree(rest, ignore_errors=True)
    (place / "progress.json").unlink(missing_ok=True)


def _end_with_worker() -> None:
    """Nothing is ever written there: reading returns when the other end is closed."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
