"""Processes that end with the one that started them."""

import os
import threading
import time

#: Seconds between two looks.
_PATIENCE = 0.5


def end_with(parent: int) -> None:
    """
    End this process as soon as its parent has ended, in any way, whatever it is doing.

    :param parent: Process id of the parent.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PATIENCE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
