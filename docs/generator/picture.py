"""The picture: from a dense SB3 policy to a sparse 8-bit file, drawn as SVG from stored results."""

from dataclasses import dataclass
from hashlib import sha256
from statistics import mean

from sb3_sparse.sweeps.report.study import AGENT

from .grids import comparison
from .markdown import estimate, number
from .stored import stored

ENV = "MinAtarBreakout-v1"
WIDTH, HEIGHT = 960, 446
CARD, GAP, TOP = 276, 42, 20
INK, FAINT, BLUE, RED = "#1f2933", "#e4e7eb", "#2b6cb0", "#c05621"


@dataclass(frozen=True)
class Stage:
    """One card: what was done, and the weights, bytes and return after it."""

    title: str
    means: str
    color: str
    weights: int
    bytes: int
    form: str
    mean: float
    interval: tuple[float, float]


def picture() -> str:
    """
    :return: The picture as SVG: the same text for the same results
    """
    stages = _stages()
    cards = [_card(index, stage, stages[0]) for index, stage in enumerate(stages)]
    arrows = [_arrow(index) for index in (1, 2)]
    body = "\n".join([*cards, *arrows, *_times()])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="Helvetica, Arial, sans-serif" role="img">\n<!-- Written by docs/generate.py from'
        " benchmarks/results/minatar-full.jsonl and inference.json. -->\n<title>A dense policy, pruned to a tenth of its"
        f' weights, then trained with 8 bits: weights, bytes, return, time</title>\n<rect width="{WIDTH}"'
        f' height="{HEIGHT}" rx="10"'
        f' fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _stages() -> list[Stage]:
    def stage(title: str, means: str, color: str, recipe: str, sparsity: float) -> Stage:
        found = comparison("minatar-full", "8 bits" if sparsity else AGENT, env=ENV, recipe=recipe, sparsity=sparsity)
        first, estimated = found.group.results[0], found.mean
        assert estimated is not None and estimated.interval is not None
        network = first["networks"]["q_net"]
        size, form = 4 * network["total"], "float32"
        if sparsity:
            files = [result["evaluations"]["8 bits"]["nbytes"] for result in found.group.results]
            size, form = round(mean(files)), "exported file"
        return Stage(title, means, color, network["nonzero"], size, form, estimated.value, estimated.interval)

    return [
        stage("an SB3 policy", "dense", INK, "gmp", 0.0),
        stage("pruned", "and rounded to 8 bits", BLUE, "gmp", 0.9),
        stage("trained in 8 bits", "QATCallback", RED, "gmp_qat", 0.9),
    ]


def _card(index: int, stage: Stage, first: Stage) -> str:
    x = 24 + index * (CARD + GAP)
    parts = [
        f'<rect x="{x}" y="{TOP}" width="{CARD}" height="250" rx="8" fill="none" stroke="{FAINT}" stroke-width="2"/>',
        _text(x + 14, TOP + 26, stage.title, size=17, weight="bold", color=stage.color),
        _text(x + CARD - 14, TOP + 26, stage.means, anchor="end", color="#616e7c"),
        _dots(x + 14, TOP + 40, stage.weights / first.weights, stage.color),
    ]
    top = first.interval[1]
    rows = (
        ("weights", number(stage.weights), stage.weights / first.weights),
        ("bytes", f"{number(stage.bytes)} ({stage.form})", stage.bytes / first.bytes),
        ("return", estimate(stage.mean, stage.interval, 1), stage.mean / max(top, 20)),
    )
    for row, (label, value, share) in enumerate(rows):
        y = TOP + 142 + 38 * row
        parts += [
            _text(x + 14, y, label, color="#616e7c"),
            _text(x + CARD - 14, y, value, anchor="end", weight="bold"),
            f'<rect x="{x + 14}" y="{y + 6}" width="{CARD - 28}" height="8" rx="4" fill="{FAINT}"/>',
            (
                f'<rect x="{x + 14}" y="{y + 6}" width="{max(4.0, share * (CARD - 28)):.1f}" height="8" rx="4"'
                f' fill="{stage.color}"/>'
            ),
        ]
    return "\n".join(parts)


def _dots(x: int, y: int, share: float, color: str) -> str:
    """A grid in which this share of the dots is drawn: the first ones of a fixed, shuffled order."""
    columns, rows, step = 31, 10, 8
    count = columns * rows
    kept = sorted(range(count), key=lambda i: sha256(str(i).encode()).digest())[: round(share * count)]
    circles = (
        f'<circle cx="{x + 4 + step * (i % columns)}" cy="{y + 4 + step * (i // columns)}" r="2.6"/>' for i in sorted(kept)
    )
    return f'<g fill="{color}">{"".join(circles)}</g>'


def _arrow(index: int) -> str:
    x, y = 24 + index * (CARD + GAP) - GAP + 8, TOP + 80
    return f'<path d="M{x} {y}h18m-7 -7l7 7l-7 7" fill="none" stroke="{INK}" stroke-width="2.5"/>'


def _times() -> list[str]:
    latency = stored("inference")["latency"]
    rows = (
        ("SB3 predict", "sb3", INK),
        ("exported, dense", "0/compiled", BLUE),
        ("exported, 95 % sparse", "95/compiled", BLUE),
        ("... with 8-bit activations", "95/vbmi", RED),
    )
    longest = latency["sb3"]["median"]
    parts = [_text(24, 304, "microseconds per action, an actor of 17-256-256-6 (untrained masks)", color="#616e7c")]
    for row, (label, key, color) in enumerate(rows):
        y, value = 326 + 22 * row, latency[key]["median"]
        width = value / longest * 620
        parts += [
            _text(24, y, label),
            f'<rect x="212" y="{y - 10}" width="{max(2.0, width):.1f}" height="12" rx="3" fill="{color}"/>',
            _text(round(212 + max(2.0, width) + 8), y, number(value, 1), weight="bold"),
        ]
    seeds = len(comparison("minatar-full", env=ENV, recipe="gmp_qat", sparsity=0.9).group.results)
    caption = (
        f"Upper part: DQN on MinAtar Breakout, mean of {seeds} seeds and 95 % interval; the last took a fifth more steps."
    )
    return [*parts, _text(24, 432, caption, size=12, color="#616e7c")]


def _text(
    x: float, y: float, text: str, *, size: int = 13, weight: str = "normal", anchor: str = "start", color: str = INK
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{color}">{text}</text>'
    )
