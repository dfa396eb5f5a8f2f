"""Return over bytes: large networks pruned, smaller ones pruned, small ones dense."""

from dataclasses import dataclass
from statistics import mean
from typing import Any

from ..markdown import bullets, estimate, number, table
from ..page import Page
from ..stored import stored

#: Shares of the return to keep.
SHARES = (0.8, 0.9, 0.95, 0.98)
FORMS = ("float", "8 bits", "4 bits", "4 bits, trained", "3 bits", "3 bits, trained", "2 bits", "2 bits, trained")


@dataclass(frozen=True)
class Point:
    """One exported student."""

    family: str
    shape: str
    form: str
    nbytes: float
    share: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        return f"{_name(self.shape)}, {self.form}"


def _name(shape: str) -> str:
    widths, _, sparsity = shape.partition("-")
    return f"{widths} {'dense' if sparsity == '0' else f'{sparsity} %'}"


def _points(results: dict[str, Any], agent: str) -> list[Point]:
    """The students of an agent in few bits, the smallest first."""
    found = []
    for key, own in results["students"].items():
        name, shape, form = key.split("/")
        if name == agent and form != "float":
            family = next(family for family, shapes in results["families"].items() if shape in shapes)
            found.append(Point(family, shape, form, mean(own["nbytes"]), results["ratios"][key], results["intervals"][key]))
    return sorted(found, key=lambda point: point.nbytes)


def _smallest(points: list[Point], share: float, family: str | None = None) -> Point | None:
    """The smallest file that keeps so much, of one family or of all."""
    return next((point for point in points if point.share >= share and family in (None, point.family)), None)


def _front(points: list[Point]) -> list[Point]:
    """Those that keep more than every smaller one."""
    found: list[Point] = []
    for point in points:
        if point.share > max((other.share for other in found), default=0.0):
            found.append(point)
    return found


def _rounded(points: list[Point]) -> list[Point]:
    """Those that every family has: rounded after the training."""
    return [point for point in points if "trained" not in point.form]


def _winners(results: dict[str, Any], share: float) -> str:
    """Which family has the smallest file, task by task."""
    won: dict[str, list[str]] = {}
    for agent in results["teachers"]:
        points = _rounded(_points(results, agent))
        best = _smallest(points, share)
        if best is None:
            won.setdefault("none of them", []).append(agent)
            continue
        others = [_smallest(points, share, family) for family in results["families"] if family != best.family]
        second = min((point.nbytes for point in others if point is not None), default=None)
        rest = "the others do not reach it" if second is None else f"the next family takes {number(second)}"
        won.setdefault(f"*{best.family}*", []).append(f"{agent} ({number(best.nbytes)} bytes; {rest})")
    return f"To keep {share}: " + "; ".join(f"{family} for {', '.join(agents)}" for family, agents in won.items()) + "."


def _tables(results: dict[str, Any], agent: str) -> list[str]:
    points = _points(results, agent)
    families = results["families"]
    forms = [form for form in FORMS if any(key.endswith(f"/{form}") for key in results["students"])]
    rows = []
    for share in SHARES:
        reached = [_smallest(_rounded(points), share, family) for family in families]
        rows.append((f"{share}", *("not reached" if p is None else f"{number(p.nbytes)} ({p})" for p in reached)))
    front = [(number(p.nbytes), estimate(p.share, p.interval, 3), str(p), p.family) for p in _front(points)]
    published = [_compare(results, agent, point) for point in results["published"][agent]]
    return [
        f"## {agent}",
        f"The teacher returns {number(results['teachers'][agent])}.",
        "The smallest file of each family that keeps a share, rounded after the training:",
        table(("share", *families), rows),
        "The students that keep more than every smaller one:",
        table(("bytes", "share", "student", "family"), front, align="rrll"),
        *published,
        "Every student:",
        table(("student", "CPU minutes", *forms), _rows(results, agent, forms)),
    ]


def _trained(results: dict[str, Any]) -> list[str]:
    """What training with few bits changes."""
    lines = []
    for key in results["ratios"]:
        agent, shape, form = key.split("/")
        if "trained" in form:
            bits, size = form.removesuffix(", trained"), number(mean(results["students"][key]["nbytes"]))
            share, after = results["ratios"][key], results["ratios"][f"{agent}/{shape}/{bits}"]
            lines.append(
                f"{agent}, {_name(shape)}, {bits}: {number(share, 3)} in {size} bytes; rounded afterwards {number(after, 3)}"
            )
    text = (
        "Some students were made once more, and had their few bits in the last part of the training: `distill(..., bits=4)`."
        " Not every shape was, so they do not count in the comparison of the families."
    )
    return ["## Trained with few bits", text, bullets(lines)] if lines else []


def _compare(results: dict[str, Any], agent: str, point: dict[str, Any]) -> str:
    """A published network, and the student of the same shape and bits."""
    key = f"{agent}/{'x'.join(map(str, point['layers'][1:-1]))}-0/{point['bits']} bits"
    own = f" The distilled one keeps {results['ratios'][key]:.3f} of its teacher." if key in results["ratios"] else ""
    return (
        f"Published: {'-'.join(map(str, point['layers']))} in {point['bits']} bits, {number(point['nbytes'])} bytes of weights"
        f" alone, keeps at least {point['keeps']:.2f} of a float 256x256 agent of that study.{own}"
    )


def _rows(results: dict[str, Any], agent: str, forms: list[str]) -> list[tuple[str, ...]]:
    """Every student of an agent: its share in each form, and the bytes of file and tables."""
    rows = []
    for shape in (shape for shapes in results["families"].values() for shape in shapes):
        keys = [f"{agent}/{shape}/{form}" for form in forms]
        if keys[0] in results["students"]:
            minutes = mean(results["students"][keys[0]]["cpu_minutes"])
            rows.append((_name(shape), f"{minutes:.1f}", *(_cell(results, key) for key in keys)))
    return rows


def _cell(results: dict[str, Any], key: str) -> str:
    own = results["students"].get(key)
    if own is None:
        return ""
    share = estimate(results["ratios"][key], results["intervals"][key], 3)
    return f"{share}; {number(mean(own['nbytes']))} B, {number(mean(own['tables']))} B"


def _missing(results: dict[str, Any]) -> list[str]:
    """Which students are not there yet."""
    shapes: dict[str, list[str]] = {}
    for agent, cell in (name.split("/") for name in results["missing"]):
        if "_bits" not in cell:
            shapes.setdefault(agent, []).append(_name(cell.split("_")[0]))
    names = [f"{agent}: {', '.join(dict.fromkeys(own))}" for agent, own in shapes.items()]
    return [f"Not run yet, and missing in every comparison: {'; '.join(names)}."] if names else []


def page() -> Page:
    """
    :return: The page
    """
    results = stored("sizes")
    agents = list(results["teachers"])
    rounded = "Weights are rounded after the training, if a column does not say otherwise."
    if not any("trained" in key for key in results["students"]):
        rounded = (
            "Weights are rounded after the training: nothing here has learnt with its few bits. The published networks have."
        )
    bits = sorted({key[-len("4 bits, trained")] for key in results["students"] if key.endswith("trained")}, reverse=True)
    trained = f"--trained {' '.join(bits)} " if bits else ""
    return Page(
        title="Return over bytes",
        question="Which network plays best in so many bytes: a large one pruned, a smaller one pruned, or a small dense one?",
        answer=(
            "It depends on the task, and on how much of the return is to be kept. The family with the smallest file, where"
            " weights are rounded after the training:\n\n" + bullets(_winners(results, share) for share in SHARES)
        ),
        tables=[block for agent in agents for block in _tables(results, agent)] + _trained(results),
        columns={
            "float, 8 bits, ...": (
                "mean return over the teacher's on the same fresh episodes, with a 95 % interval by a bootstrap over episodes,"
                " and over seeds where there are several; then bytes of the compact file, and of the C header's constants"
            ),
            "share": "mean return over the teacher's",
            "CPU minutes": "of the whole process without the evaluation: start, environment steps, training",
        },
        limits=[
            *_missing(results),
            (
                f"{results['seeds']} seed{'s' if results['seeds'] > 1 else ''} of the distillation and"
                f" {results['episodes']} episodes. Students that keep about as much as a share may be on either side of it."
                " The best of several is chosen on the episodes that it is shown with, so it looks somewhat better than it is."
            ),
            rounded,
            (
                "The published networks were trained from scratch with quantized weights and activations, and keep their share"
                " of a float 256x256 actor of the same study. Their bytes are the packed weights alone, without scales, biases"
                " and header, and they are the best of about 50 cells per task."
            ),
            (
                "All students have the same number of updates and steps. `distill` takes more for high sparsities by default,"
                " and [keeps more there](distill.md)."
            ),
        ],
        settings={
            "agents": "`rl-trained-agents`, the public collection that rl-zoo3 trained; networks of 256-256",
            "students": f"{number(results['updates'])} updates and {number(results['steps'])} environment steps each",
            "evaluation": f"{results['episodes']} episodes per file, calibration on other episodes of the student",
            "published": (
                "Kresse and Lampert 2025, [arXiv 2511.07046](https://arxiv.org/abs/2511.07046), from the raw results of"
                " [arXiv 2512.01467](https://arxiv.org/abs/2512.01467)"
            ),
        },
        commands=[
            "python -m benchmarks.size.sizes tqc-Hopper-v4.zip tqc-HalfCheetah-v4.zip sac-Hopper-v4.zip"
            " sac-HalfCheetah-v4.zip \\\n"
            f"    {trained}--json benchmarks/results/sizes.json --png benchmarks/results/sizes.png"
        ],
        figures={"sizes": "Return of students over the teacher, by bytes of the file, with the published networks"},
        files=["sizes"],
    )
