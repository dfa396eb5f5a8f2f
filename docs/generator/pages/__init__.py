"""The pages of results, one per file, in the order of their index."""

NAMES = (
    "twins",
    "dynamic",
    "pixels",
    "offline_returns",
    "offline_memory",
    "offline_speed",
    "returns",
    "distill",
    "ablation",
    "sizes",
    "recurrent",
    "collection",
    "inference",
    "microcontroller",
    "bits",
    "throughput",
    "engine_learning",
    "rivals",
    "overhead",
    "training_speed",
)
