"""The records that the passes take into account. A network with any other part would lose it, or act differently."""

from sb3_sparse.runtime.network.capabilities import Capabilities
from sb3_sparse.runtime.network.records import (
    ACTIVATIONS,
    HEADS,
    Activation,
    Fixed,
    Grid,
    Head,
    Layer,
    Minifloats,
    Network,
    Norm,
    Normalize,
    Part,
    Pool,
    Stack,
)

#: All passes take activations and heads as they are.
PASSES = Capabilities(
    "the export",
    instead="change this part of the model, or update sb3_sparse",
    records={
        Network: "shape image normalize layers head ranges parts stack view",
        Stack: "frames normalize",
        Part: "key shape sizes encoder",
        Normalize: "mean scale limit",
        Layer: "weight bias activation scale gain stride padding rectify residual pool lstm norm grid",
        Activation: "name low high slopes",
        Norm: "epsilon scale shift",
        Pool: "kernel stride padding mean",
        Grid: "unit low top",
        Minifloats: "codes unit",
        Fixed: "codes unit",
        Head: "kind shape low high groups",
    },
    activations=ACTIVATIONS,
    heads=HEADS,
)
