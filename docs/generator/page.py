"""One page of results: a question, its answer, the table, the meaning of the columns, the limits, and how to make it again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .markdown import bullets, table
from .stored import stored

NOTE = "<!-- Written by docs/generate.py. Do not edit: change docs/generator or the stored results, and run it again. -->"


@dataclass(frozen=True)
class Page:
    """
    :param title: Title of the page.
    :param question: The question that the benchmark asks.
    :param answer: What the results say, in one to three sentences.
    :param tables: Tables, with text between them where it is needed.
    :param columns: What each column means, by its name.
    :param limits: What limits the claim.
    :param settings: What was run: steps, seeds, sizes.
    :param commands: The commands that make the stored files.
    :param files: Names of the stored files, without ``.json``; none where the page is about grids.
    :param figures: Names of stored figures, and what they show.
    """

    title: str
    question: str
    answer: str
    tables: Sequence[str]
    columns: Mapping[str, str]
    limits: Sequence[str]
    settings: Mapping[str, str]
    commands: Sequence[str]
    files: Sequence[str]
    figures: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> str:
        """
        :return: The page as Markdown
        """
        figures = [f"![{text}](../../benchmarks/results/{name}.png)" for name, text in self.figures.items()]
        blocks = [
            f"# {self.title}",
            NOTE,
            f"**Question.** {self.question}",
            f"**Answer.** {self.answer}",
            *self.tables,
            *figures,
            "## How to read it",
            table(("column", "meaning"), self.columns.items(), align="ll"),
            "## What limits the claim",
            bullets(self.limits),
            "## How it was made",
            "```bash\n" + "\n".join(self.commands) + "\n```",
            table(("", ""), [*self.settings.items(), *self._provenance()], align="ll"),
        ]
        return "\n\n".join(blocks) + "\n"

    def _provenance(self) -> list[tuple[str, str]]:
        """Where the numbers are, and what made them; files that agree on versions and machine share a line."""
        places = ", ".join(f"[{name}.json](../../benchmarks/results/{name}.json)" for name in self.files)
        rows = [("stored in", places)] if places else []
        for key, describe in (("versions", _versions), ("machine", _machine)):
            texts = [describe(stored(name)[key]) for name in self.files]
            if len(set(texts)) == 1:
                rows.append((key, texts[0]))
            else:
                rows.extend((f"{key} of {name}", text) for name, text in zip(self.files, texts, strict=True))
        return rows


def formerly(commit: str, *commands: str) -> list[str]:
    """
    :param commit: The commit that has stored results, with the script that made them; it is not there today.
    :param commands: The commands that made them.
    :return: What makes the stored results again
    """
    return [f"git checkout {commit}    # has the script that made the stored results", *commands]


def today(*grids: str) -> list[str]:
    """
    :param grids: Names of grids, with options such as a size.
    :return: What asks the same anew, see the guide about sweeps
    """
    lines = [line for grid in grids for line in (f"sb3-sparse benchmark run {grid}", f"sb3-sparse benchmark report {grid}")]
    return ["", "# today a grid asks this, of runs that are longer", *lines]


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package.replace(' beside ', ' next to ')} {version}" for package, version in versions.items())


def _machine(machine: Mapping[str, object]) -> str:
    gpu = machine["gpu"] or "without a GPU"
    threads = machine["torch_threads"]
    return f"{machine['processor']}, {machine['cores']} cores, {threads} torch thread{'' if threads == 1 else 's'}, {gpu}"
