"""The targets by name, and the one function that writes their files."""

import re
from collections.abc import Iterable
from pathlib import Path

from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.c.tables import fill
from sb3_sparse.export.targets.arduino import ARDUINO
from sb3_sparse.export.targets.cmake import CMAKE
from sb3_sparse.export.targets.esp_idf import ESP_IDF
from sb3_sparse.export.targets.parts import make_parts
from sb3_sparse.export.targets.ros2 import ROS2
from sb3_sparse.export.targets.zephyr import ZEPHYR
from sb3_sparse.runtime.masks import with_outputs
from sb3_sparse.runtime.network.records import Network

TARGETS = {"arduino": ARDUINO, "cmake": CMAKE, "esp-idf": ESP_IDF, "ros2": ROS2, "zephyr": ZEPHYR}
#: Those whose header has code for SIMD registers: C for computers. Microcontrollers have none, and the node of ROS 2 is C++.
WITH_SIMD = ("cmake",)
#: Those that act by themselves, and receive nothing but an observation.
WITHOUT_MASKS = ("ros2",)


def write_target(
    network: Network, target: str, folder: Path, *, name: str = "policy", masks: bool = False, pack: bool = True
) -> list[Path]:
    """
    Write a policy as a project for a build system: the C header of :func:`~sb3_sparse.export.c.header.to_c`, and files around
    it that are the same for every policy, but for names and sizes.

    :param network: The network.
    :param target: A name in ``TARGETS``.
    :param folder: Where the project's folder, ``<name>_policy``, goes; what an earlier call has written there is replaced.
    :param name: Prefix of the C functions; the project is called ``<name>_policy``.
    :param masks: See :func:`~sb3_sparse.export.c.header.to_c`.
    :param pack: See :func:`~sb3_sparse.export.c.header.to_c`.
    :return: Paths of the files
    :raises ValueError: if there is no such target, it does not take masks, or the header cannot be written
    """
    check_targets([target], masks=masks)
    simd = target in WITH_SIMD
    code = to_c(network, name=name, masks=masks, pack=pack, simd=simd)
    parts, conditions = make_parts(with_outputs(network) if masks else network, name, code, simd=simd, masks=masks)
    written = []
    for path, template in TARGETS[target].items():
        file = folder / fill(path, parts)
        text = re.sub(r"^@([A-Z]+)@(.*\n)", lambda line: _keep(line, conditions), template, flags=re.MULTILINE)
        if not text:
            # Of an earlier policy, which had integers.
            file.unlink(missing_ok=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(fill(text, parts))
        written.append(file)
    return written


def check_targets(targets: Iterable[str], *, masks: bool = False) -> list[str]:
    """
    :param targets: Names.
    :param masks: Whether actions are chosen among those that are allowed.
    :return: The same, each once
    :raises ValueError: if one is not in ``TARGETS``, or does not take masks
    """
    for target in targets:
        if masks and target in WITHOUT_MASKS:
            raise ValueError(
                f"the target {target!r} does not support masks of actions, because its observation is one array of numbers:"
                " use the target 'cmake'"
            )
        if target not in TARGETS:
            raise ValueError(f"there is no target {target!r}: choose from {', '.join(TARGETS)}")
    return list(dict.fromkeys(targets))


def _keep(line: re.Match[str], conditions: dict[str, bool]) -> str:
    """A line without its condition, nothing where that does not hold, or the line of another part as it is."""
    return line[2] * conditions[line[1]] if line[1] in conditions else line[0]
