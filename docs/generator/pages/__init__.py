"""The pages of results, one per file, in the order of their index."""

NAMES = (
    "claims",
    "offline_memory",
    "offline_speed",
    "returns",
    "agents",
    "smallest",
    "ablation",
    "recurrent",
    "collection",
    "inference",
    "microcontroller",
    "bits",
    "throughput",
    "rivals",
    "overhead",
    "training_speed",
    "limits",
)
