"""What the process of a cell says of itself while it works."""

import json
import time
from pathlib import Path

from sb3_sparse.sweeps.folder import write_whole

#: Seconds between two messages.
_INTERVAL = 2.0


class Messages:
    """
    Writes how far a cell is, and what it has taken until now with the processes of it that died.

    :param folder: The cell's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "progress.json"
        self._begin, self._last = time.monotonic(), 0.0
        try:
            before = json.loads(self._file.read_text())
            self._before = float(before["seconds"]), float(before["cpu_seconds"])
        except (FileNotFoundError, ValueError):
            # The machine may have lost its power while it was written.
            self._before = 0.0, 0.0

    def spent(self) -> dict[str, float]:
        """
        :return: Seconds and CPU seconds until now
        """
        seconds, cpu = self._before
        return {
            "seconds": round(seconds + time.monotonic() - self._begin, 2),
            "cpu_seconds": round(cpu + time.process_time(), 2),
        }

    def tell(self, share: float) -> None:
        """
        :param share: Which share is done; it is written if the last time was a while ago.
        """
        now = time.monotonic()
        if now > self._last + _INTERVAL:
            write_whole(self._file, json.dumps({"share": round(share, 4), **self.spent()}), durable=False)
            self._last = now
