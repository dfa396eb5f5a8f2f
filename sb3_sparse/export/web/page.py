"""
One HTML page that needs nothing else: policies as WebAssembly, their sizes, returns and masks, and a live comparison.

The WebAssembly is the constant C kernel of the runtime, compiled once and shipped with the package, so that nobody needs a
compiler; a policy is a :class:`~sb3_sparse.runtime.backends.plan.Plan` for it, as in Python. The page compares the actions of
its examples with Python's before it offers anything: a kernel that does not fit the plan shows an error and no action.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sb3_sparse.export.c.tables import fill
from sb3_sparse.export.c.vectors import draw_examples
from sb3_sparse.export.pipeline import Compressed
from sb3_sparse.export.report import LayerReport, density
from sb3_sparse.runtime.backends.plan import COMPILED, Plan
from sb3_sparse.runtime.network.capabilities import Capabilities, require_known
from sb3_sparse.runtime.network.records import Layer, Network

_HERE = Path(__file__).parent
_SCRIPTS = ("policy.js", "environments.js", "game.js", "page.js")
_INSTEAD = "write a C header or an ONNX graph"
WEB = Capabilities(
    "the web page",
    instead=_INSTEAD,
    records={record: " ".join(names) for record, names in COMPILED.records.items()}
    | {Network: "shape image normalize layers head ranges view"},
    activations=COMPILED.activations,
    heads=COMPILED.heads,
)
#: Environments that the page can play: numbers of an observation, and choices of a discrete action.
ENVIRONMENTS: dict[str, tuple[int, tuple[int, ...]]] = {
    "Acrobot-v1": (6, (3,)),
    "CartPole-v1": (4, (2,)),
    "MountainCar-v0": (2, (3,)),
    "MountainCarContinuous-v0": (2, ()),
    "Pendulum-v1": (3, ()),
}


@dataclass(frozen=True, eq=False)
class Entry:
    """
    A policy of a page.

    :param name: Its name there.
    :param compressed: The exported policy.
    :param returns: Returns of its episodes, if there are some.
    """

    name: str
    compressed: Compressed
    returns: Sequence[float] = ()


def check_web(network: Network) -> None:
    """
    :param network: A network.
    :raises ValueError: if the page cannot hold it: its observations are images, a dict or classes, or stacks of frames that
        the policy keeps itself, or the kernels do not compute it
    """
    if network.image:
        raise ValueError(f"the network takes images, which the web page does not support: {_INSTEAD}")
    require_known(network, WEB)


def check_environment(env: str, network: Network) -> None:
    """
    :param env: Name of an environment.
    :param network: The network that plays in it.
    :raises ValueError: if the page does not have the environment, or the network does not fit it
    """
    if env not in ENVIRONMENTS:
        raise ValueError(f"the web page cannot play {env}: it has {', '.join(ENVIRONMENTS)}")
    inputs, groups = ENVIRONMENTS[env]
    if network.shape != (inputs,) or network.head.groups != groups or network.head.inputs != (sum(groups) or 1):
        raise ValueError(
            f"the policy takes observations of shape {network.shape} and has {network.head.inputs} outputs, which does not "
            f"fit {env}"
        )


def make_page(title: str, entries: Sequence[Entry], env: str | None = None) -> str:
    """
    :param title: Title of the page.
    :param entries: Its policies; the last one is the exported policy, the others are there for comparison.
    :param env: Name of the environment that they play in side by side; None for no live comparison.
    :return: The text of the page
    :raises ValueError: if the page cannot hold a policy, or cannot play the environment
    """
    for entry in entries:
        check_web(entry.compressed.network)
        if env is not None:
            check_environment(env, entry.compressed.network)
    report = entries[-1].compressed.report
    data = {
        "env": env,
        "kernel": _base64((_HERE / "kernel.wasm").read_bytes()),
        "players": [_player(entry) for entry in entries],
        "formats": report.nbytes,
        "notes": report.notes,
    }
    parts = {
        "TITLE": escape(title),
        "STYLE": (_HERE / "page.css").read_text(),
        # Nothing in it ends the element that it is in.
        "DATA": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        "SCRIPT": "\n".join((_HERE / name).read_text() for name in _SCRIPTS),
    }
    return fill((_HERE / "page.html").read_text(), parts)


def _player(entry: Entry) -> dict[str, Any]:
    network, report, content = entry.compressed
    plan = Plan(network)
    observations, actions, tolerance = draw_examples(network)
    _, lstms, units = network.state_shape
    # Unit layers carry an activation or a norm, and have no weights.
    layers = [(each, layer) for each, layer in zip(report.layers, network.layers, strict=True) if each.total]
    return {
        "name": entry.name,
        "plan": _base64(plan.data),
        "scratch": plan.scratch,
        "inputs": prod(network.shape),
        "shape": network.head.shape,
        "actions": prod(network.head.shape),
        "discrete": network.head.kind == "argmax",
        "memory": lstms * units,
        "bits": max(each.bits for each, _ in layers),
        "weights": sum(each.nonzero_after for each, _ in layers),
        "bytes": len(content),
        "returns": list(entry.returns),
        "examples": {
            "observations": observations.reshape(len(observations), -1).tolist(),
            "actions": actions.reshape(len(actions), -1).tolist(),
            "tolerance": tolerance,
        },
        "layers": [_layer(*pair) for pair in layers],
    }


def _layer(report: LayerReport, layer: Layer) -> dict[str, Any]:
    picture = np.ceil(255 * density(layer.weight)).astype(np.uint8)
    height, width = picture.shape
    return {
        "name": report.name,
        "rows": layer.rows,
        "columns": layer.weight[0].size,
        "height": height,
        "width": width,
        "density": _base64(picture.tobytes()),
    }


def _base64(content: bytes) -> str:
    return b64encode(content).decode()
