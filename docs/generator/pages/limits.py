"""Where sparsity and few bits fail, from the results of the other pages."""

from statistics import mean

from ..grids import comparison
from ..markdown import estimate, interval, number, percent, table
from ..page import Page
from ..stored import require, stored

_FILES = (
    "distill",
    "distill_critics",
    "distill_others",
    "distill_longer",
    "distill_denser",
    "sizes",
    "halfcheetah",
    "ablation",
)
_SCRATCH = ("HalfCheetah-v4", "Walker2d-v4", "Hopper-v4")
#: A student that keeps so much has lost nothing that its interval could show, or hardly anything.
_KEPT = 0.95


def page() -> Page:
    """
    :return: The page
    """
    distilled, critics = stored("distill"), stored("distill_critics")
    rows = []
    for name in distilled["teachers"]:
        keys = [f"{name}/{sparsity}/8 bits" for sparsity in ("0.95", "0.98", "0.99")]
        rows.append((name, *(estimate(distilled["ratios"][key], distilled["intervals"][key], 3) for key in keys)))
    worst = min((share, key) for key, share in distilled["ratios"].items() if "/0.99/8 bits" in key)
    require(worst[0] < 0.8, "a student at 99 % loses a fifth of its return or more")
    tqc = "tqc-HalfCheetah-v4/0.98/8 bits"
    require(critics["intervals"][tqc][1] < _KEPT, "the critics do not lift TQC's HalfCheetah at 98 %")
    return Page(
        title="Where it fails",
        question="Where do sparsity and few bits cost return, and what was tried there?",
        answer=(
            f"Distilled to 99 % the four agents keep {worst[0]:.3f} ({worst[1].split('/')[0]}) or more. Two and three bits,"
            " networks that are small already, and sparse training from scratch at 95 % lose return in our runs."
        ),
        tables=[
            "## Above 95 %",
            table(("agent, distilled, 8 bits", "95 %", "98 %", "99 %"), rows),
            (
                "Tried at 98 % on HalfCheetah: a last phase through the teacher's critics gives SAC"
                f" {_share('distill_critics', 'sac-HalfCheetah-v4/0.98/8 bits')} and TQC {_share('distill_critics', tqc)}."
            ),
            "## Small networks",
            _walker(),
            "## Two to four bits",
            *_bits(),
            "## Sparse from the first step",
            _scratch(),
        ],
        columns={"95 %, 98 %, 99 %": "mean return over the teacher's, with a 95 % interval over seeds and episodes"},
        limits=["What is listed here failed with our settings. It does not say that no settings would do."],
        settings={
            "seeds": "as on the pages that the numbers come from: [distilled agents](distill.md), [return over"
            " bytes](sizes.md), [learning in the engine](engine_learning.md), [ablation](ablation.md)"
        },
        commands=["python docs/generate.py  # from the results of those pages"],
        files=_FILES,
    )


def _share(file: str, key: str, kind: str = "ratios") -> str:
    results = stored(file)
    return estimate(results[kind][key], results["intervals" if kind == "ratios" else "kept_intervals"][key], 3)


def _walker() -> str:
    """A network of 64-64 units."""
    name = "ppo-Walker2d-v3"
    shares = [_share("distill_others", f"{name}/0.95/8 bits", "kept")]
    shares += [_share("distill_denser", f"{name}/{sparsity}/8 bits", "kept") for sparsity in ("0.9", "0.8")]
    long = _share("distill_longer", f"{name}/0.95/8 bits", "kept")
    return (
        f"PPO's Walker2d has 64-64 units. It keeps {shares[0]} at 95 %, {shares[1]} at 90 % and {shares[2]} at 80 %. Six times"
        f" as many updates at 95 % keep {long}."
    )


def _bits() -> list[str]:
    """Weights of few bits: text and table."""
    results = stored("sizes")
    rows, kept = [], {}
    for key, share in results["ratios"].items():
        name, shape, form = key.split("/")
        if form.endswith("trained"):
            bits = form.removesuffix(", trained")
            rounded = results["ratios"][f"{name}/{shape}/{bits}"]
            rows.append((f"{name}, {shape}", bits, number(rounded, 3), number(share, 3)))
            kept.setdefault(bits, []).append(share)
    require(max(kept["2 bits"] + kept["3 bits"]) < 0.8 < min(kept["4 bits"]), "3 and 2 bits lose a fifth or more, 4 do not")
    text = (
        "Share of the return with weights that were rounded after the training, and with weights that were trained in their"
        " bits. One seed each; shapes are hidden layers and sparsity in percent."
    )
    return [text, table(("student", "bits", "rounded", "trained"), rows, align="llrr")]


def _scratch() -> str:
    """Training from scratch on HalfCheetah, and the score."""
    own = stored("halfcheetah")["agents"]["RigL 95 %, engine"]
    dense = stored("distill")["teachers"]["sac-HalfCheetah-v4"]
    finals = [mean(returns) for returns in own["returns"]]
    require(mean(finals) < dense, "RigL at 95 % returns less than the public dense agent")
    sac = stored("ablation")["sac"]
    low, high = sac["difference"]
    require(low < 0 < high, "fisher and magnitude do not differ in reinforcement learning")
    return (
        f"SAC on HalfCheetah with RigL at {percent(0.95)} in actor and critics returns"
        f" {', '.join(number(value) for value in sorted(finals))} after {number(own['steps'])} steps with three seeds; the"
        f" public dense agent returns {number(dense)}. {_long()} Ranking weights by `fisher` instead of magnitude in"
        " gradual pruning"
        f" makes no difference that three seeds of {number(sac['steps'])} steps could show:"
        f" {interval(sac['difference'])}."
    )


def _long() -> str:
    """Runs of a million steps, pruned gradually."""
    words = []
    for env in _SCRATCH:
        found = comparison("sac_from_scratch-full", "8 bits", env=env, recipe="gmp_both", sparsity=None).group
        best = [max(mean(values) for values in result["curve"]["returns"]) for result in found.results]
        finals = ", ".join(number(value) for value in found.returns)
        words.append(f"{env} {finals} (best evaluation in training {', '.join(map(number, best))})")
        fallen = [env for last, top in zip(found.returns, best, strict=True) if last < top / 2]
        require(bool(fallen) == (env == "Hopper-v4"), "of these agents only Hopper's have fallen below half of their best")
    steps = found.results[0]["steps"]
    return (
        "Pruned gradually to 5 % of the actor's weights and 20 % of the critics' in"
        f" {number(steps)} steps, each number a seed, in 8 bits, agents return: {'; '.join(words)}. The last agent counts"
        " here, and on Hopper not every seed's is near its best."
    )
