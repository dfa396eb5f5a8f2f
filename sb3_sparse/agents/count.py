"""``sb3-sparse summary``: what the agent in an SB3 zip costs."""

from dataclasses import replace
from pathlib import Path

from sb3_sparse.agents.archive import read_policy, read_settings
from sb3_sparse.agents.load import load_agent
from sb3_sparse.cost import Summary, read_training, summarize, summarize_parameters


def summarize_agent(agent: Path, *, load: bool, trust: bool = False) -> Summary:
    """
    :param agent: An SB3 zip.
    :param load: Whether to load the whole agent, for the FLOPs of convolutions and of training and for the masks of callbacks.
    :param trust: Whether to unpickle whatever the zip names, which may run any code.
    :return: The counts; without ``load``, those of the weights in the file
    :raises ValueError: if the file is damaged, or the agent cannot be loaded
    :raises OSError: if it cannot be read
    """
    if not load:
        return replace(summarize_parameters(read_policy(agent)), training=read_training(read_settings(agent)))
    return summarize(load_agent(agent, trust=trust))
