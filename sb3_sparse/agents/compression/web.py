"""The page of ``sb3-sparse compress --web``: an agent beside its exported policy."""

from dataclasses import dataclass
from pathlib import Path

from sb3_contrib import MaskablePPO

from sb3_sparse.agents.opening import Agent, open_agent
from sb3_sparse.agents.progress import Progress
from sb3_sparse.agents.returns import Returns, play_returns
from sb3_sparse.export import Compressed, compress_network
from sb3_sparse.export.web import ENVIRONMENTS, Entry, check_environment, check_web, make_page


@dataclass(frozen=True)
class Page:
    """
    The page of an agent, before there is anything to write.

    :param agent: The agent.
    :param dense: Another agent, which plays beside the exported policy; None for the agent itself.
    :param env: Name of the environment that they play in on the page, if it has it.
    """

    agent: Agent
    dense: Agent | None
    env: str | None

    def write(self, file: Path, compressed: Compressed, returns: Returns | None, limit: float) -> None:
        """
        :param file: The HTML file.
        :param compressed: The exported policy.
        :param returns: Returns of the agent and of the exported policy, if there are some.
        :param limit: Seconds that the episodes of the other agent may take.
        """
        beside = self.agent if self.dense is None else self.dense
        played: tuple[float, ...] = () if returns is None else returns.model
        if self.dense is not None and returns is not None:
            played = self._play(self.dense, returns.seeds, limit)
        entries = [
            Entry(f"{beside.path.name} in float32", compress_network(beside.original, 32), played),
            Entry(f"{self.agent.path.stem}.sb3s", compressed, () if returns is None else returns.exported),
        ]
        env = self.agent.env
        title = self.agent.path.stem if env is None or env == self.agent.path.stem else f"{self.agent.path.stem}, {env}"
        file.write_text(make_page(title, entries, self.env))

    def _play(self, dense: Agent, seeds: tuple[int, ...], limit: float) -> tuple[float, ...]:
        assert self.agent.venv is not None
        progress, totals = Progress(f"episodes of {dense.path.name}", len(seeds), limit), []
        for seed in seeds:
            totals += play_returns(self.agent.venv, dense.act, [seed])
            if not progress.advance(len(totals)):
                break
        return tuple(totals)


def open_page(agent: Agent, dense: Path | None, *, trust: bool) -> Page:
    """
    :param agent: The agent of the page.
    :param dense: Zip of another agent, such as the teacher of a student, to play beside the exported policy; None for the
        agent itself.
    :param trust: See :func:`~sb3_sparse.agents.opening.open_agent`.
    :return: The page
    :raises ValueError: if the page cannot hold a policy, or the other agent cannot play in the agent's environment
    :raises OSError: if a file cannot be read
    """
    other = None if dense is None else open_agent(dense, trust=trust)
    for each in filter(None, (agent, other)):
        if isinstance(each.model, MaskablePPO):
            raise ValueError(f"{each.path.name} chooses among actions that are allowed, which the web page does not support")
        check_web(each.original.network)
    if other is not None and (other.model.observation_space, other.model.action_space) != (
        agent.model.observation_space,
        agent.model.action_space,
    ):
        raise ValueError(f"{other.path.name} has other observations or actions than {agent.path.name}")
    return Page(agent, other, _live(agent))


def _live(agent: Agent) -> str | None:
    """The environment, if the page has it as the agent plays in it."""
    if agent.venv is None:
        return None
    name, settings = str(agent.venv.get_attr("spec")[0].id), agent.settings
    changed = settings.env_kwargs or settings.frame_stack or (agent.wrappers is not None and agent.wrappers.classes)
    if name not in ENVIRONMENTS or changed:
        print(f"nobody plays on the page: it has {', '.join(ENVIRONMENTS)}, without arguments and wrappers")
        return None
    check_environment(name, agent.original.network)
    return name
