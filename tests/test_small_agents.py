"""The agents that the repository holds are those that their cards describe, and play."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from sb3_sparse.agents import Player, make_environment, play
from sb3_sparse.runtime import load

ROOT = Path(__file__).parents[1]
CARDS = {
    name: card
    for file in ("agents", "trained")
    for name, card in json.loads((ROOT / "benchmarks" / "results" / f"{file}.json").read_text())["agents"].items()
}


def file_of(name):
    return ROOT / "docs" / "results" / "agents" / f"{name}.sb3s"


def return_of(card):
    return card["return"] if "return" in card else card["returns"]["student"]


def test_every_file_has_a_card():
    assert sorted(file.stem for file in (ROOT / "docs" / "results" / "agents").iterdir()) == sorted(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_its_bytes_and_weights(name):
    """Those of the card."""
    data = file_of(name).read_bytes()
    assert len(data) == CARDS[name]["nbytes"] and hashlib.sha256(data).hexdigest() == CARDS[name]["sha256"]
    network = load(file_of(name)).network
    assert sum(np.count_nonzero(layer.weight) for layer in network.every_layer) == CARDS[name]["weights"]


@pytest.mark.parametrize("name", [name for name in CARDS if "HalfCheetah" in name])
def test_it_plays(name):
    """The median of three episodes on this machine: in a few HalfCheetah turns over, and rounding decides in which."""
    venv = make_environment(CARDS[name]["env"], None)
    totals = [list(play(venv, Player(load(file_of(name))), seed))[-1][1] for seed in (7, 8, 9)]
    assert np.median(totals) > 0.8 * return_of(CARDS[name])
