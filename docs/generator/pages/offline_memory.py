"""Bytes of BCQ's networks, and the published ones."""

from statistics import mean
from typing import Any

from ..markdown import number, table
from ..page import Page
from ..stored import BEFORE_LAYOUTS, stored


def page() -> Page:
    """
    :return: The page
    """
    results = stored("offline_memory")
    networks = ("actor", "critic", "vae")
    rows = [
        (label, *(_megabytes(results, f"{key}/{network}", digits) for network in networks))
        for label, key, digits in (
            ("dense", "dense", 3),
            ("dense, sparse indexing", "dense/coo", 3),
            ("SNIP 95 %, sparse indexing", "snip/coo", 3),
            ("GraSP 95 %, sparse indexing", "grasp/coo", 3),
            ("SNIP 95 %, 16-bit indices", "snip/csr16", 3),
            ("SNIP 95 %, 8-bit file", "snip/int8", 4),
        )
    ]
    off = max(abs(results["off_published"][f"{key}/{net}"]) for key in ("dense", "dense/coo", "snip/coo") for net in networks)
    connections = [value for seed in results["connections_of_the_action"]["snip"] for value in seed]
    return Page(
        title="Memory of offline agents",
        question="How many bytes do BCQ's networks take, dense and pruned before training, and are they the published ones?",
        answer=(
            f"The dense and the sparse files have the published sizes (SNIP's, for the sparse ones) to within {100 * off:.1f}"
            f" %. The 8-bit compact file of a network at 95 % is {_ratio(results, 'actor'):.0f} (actor) to"
            f" {_ratio(results, 'vae'):.0f} times (VAE) smaller than its dense float32 file."
        ),
        tables=[table(("files, MB (published)", "actor", "critics", "VAE"), rows)],
        columns={
            "MB": "10⁶ bytes of the real file, mean over seeds; in brackets the figure that Arnob et al. 2021 publish",
            "dense": "`torch.save` of the state dict",
            "sparse indexing": (
                "`torch.save` of every parameter as a sparse COO tensor: the paper's format, in which a dense network grows"
            ),
            "16-bit indices": "`torch.save` with 32-bit row starts and 16-bit columns; lossless",
            "8-bit file": (
                "the compact file of this package: weights, indices, scales and biases, without dead units, "
                f"{BEFORE_LAYOUTS}"
            ),
        },
        limits=[
            "The bytes follow from the number of weights, except those of the 8-bit file, which depend on the masks as well.",
            "These are sizes, not returns: see [the returns](offline_figures_1_and_2-short.md).",
            (
                "A critic's size says nothing of what it computes. On observations that are not normalized SNIP at 95 %"
                f" leaves at most {max(connections)} connection from the actions to each critic here, so BCQ cannot choose"
                " among actions. The recipes normalize observations."
            ),
            (
                "The published GraSP files are smaller than the SNIP files although both keep as many weights. Our"
                " explanation: biases that begin at zero and never train are dropped by COO. The stored rows `zero_biases`"
                " measure it; the paper does not say."
            ),
        ],
        settings={
            "networks": "BCQ's defaults at HalfCheetah's sizes (17 observations, 6 actions)",
            "data": f"{results['dataset']}, {number(results['transitions'])} transitions",
            "seeds": str(results["seeds"]),
            "updates": f"{results['updates']}, for the rows with zero biases",
        },
        commands=[
            "python -m benchmarks.size.offline_memory --dataset tqc/halfcheetah/expert-v0 \\\n"
            "    --json benchmarks/results/offline_memory.json --png benchmarks/results/offline_memory"
        ],
        files=["offline_memory"],
        figures={
            "offline_memory_figure4": "bytes of the three networks over sparsity",
            "offline_memory_figure3": "share of weights that remain in each layer at 95 %",
        },
    )


def _megabytes(results: dict[str, Any], key: str, digits: int) -> str:
    published = results["published_mb"].get(key)
    text = number(mean(results["bytes"][key]) / 1e6, digits)
    return text if published is None else f"{text} ({number(published, digits)})"


def _ratio(results: dict[str, Any], network: str) -> float:
    return mean(results["bytes"][f"dense/{network}"]) / mean(results["bytes"][f"snip/int8/{network}"])
