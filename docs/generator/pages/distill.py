"""Returns of distilled students over their teachers'."""

from ..markdown import estimate, number, percent, table
from ..page import Page
from ..stored import stored


def _others() -> list[str]:
    """The agents of one seed: text and table."""
    results = stored("distill_others")
    rows = []
    for name, teacher in results["teachers"].items():
        keys = [f"{name}/0.95/{form}" for form in ("float", "8 bits")]
        student = results["students"][keys[1]]
        ratios = (estimate(results["ratios"][key], results["intervals"][key], 3) for key in keys)
        own = (number(student["returns"][0], 1), number(student["nbytes"][0]), f"{student['cpu_minutes'][0]:.1f}")
        rows.append((name, number(teacher, 1), *ratios, *own))
    header = ("agent at 95 %", "teacher", "float / teacher", "8 bits / teacher", "return, 8 bits", "bytes", "CPU minutes")
    text = (
        "One seed each, so the intervals are over episodes alone. Where returns are negative, a ratio below 1 is a better one."
        " PPO's Walker2d has 64-64 units, and 5 % of its weights are too few."
    )
    return [text, table(header, rows)]


def page() -> Page:
    """
    :return: The page
    """
    results = stored("distill")
    agents, episodes = list(results["teachers"]), results["episodes"]
    sparsities = sorted({key.split("/")[1] for key in results["ratios"]}, key=float)
    tables = []
    for name in agents:
        rows = []
        for sparsity in sparsities:
            keys = [f"{name}/{sparsity}/{form}" for form in ("float", "8 bits")]
            students = [results["students"][key] for key in keys]
            minutes = students[0]["cpu_minutes"]
            rows.append(
                (
                    percent(float(sparsity)),
                    *(estimate(results["ratios"][key], results["intervals"][key], 3) for key in keys),
                    ", ".join(number(value) for value in students[1]["returns"]),
                    f"{sum(students[1]['shorter'])} of {episodes * len(minutes)}",
                    " to ".join(number(value) for value in sorted({min(students[1]["nbytes"]), max(students[1]["nbytes"])})),
                    f"{min(minutes):.1f} to {max(minutes):.1f}",
                )
            )
        own = results["students"][f"{name}/{sparsities[0]}/float"]["teacher_shorter"]
        ratios = ("float / teacher", "8 bits / teacher")
        header = ("sparsity", *ratios, "returns, 8 bits", "shorter episodes", "bytes", "CPU minutes")
        tables += [
            f"## {name}",
            f"The teacher returns {number(results['teachers'][name])}; {own} of its {episodes} episodes are shorter.",
            table(header, rows),
        ]
    tables += ["## Smaller networks and other algorithms", *_others()]
    shares = {name: results["ratios"][f"{name}/0.95/8 bits"] for name in agents}
    spent = [minutes for key, own in results["students"].items() if "/0.95/" in key for minutes in own["cpu_minutes"]]
    lowest = min(shares, key=lambda name: shares[name])
    return Page(
        title="Distilled agents",
        question="How much of its return does a trained agent keep, when it is made sparse in minutes by distillation?",
        answer=(
            f"At 95 % and in 8 bits the four agents keep {shares[lowest]:.3f} ({lowest}) to {max(shares.values()):.3f} of"
            f" their return, each made in {min(spent):.1f} to {max(spent):.1f} CPU minutes. The tables say how much is left at"
            " higher sparsities."
        ),
        tables=tables,
        columns={
            "float / teacher, 8 bits / teacher": (
                "mean return over the teacher's on the same fresh episodes, which nothing was chosen on; 95 % interval by a"
                " bootstrap over seeds of the distillation and over episodes"
            ),
            "returns, 8 bits": "mean of each seed's student",
            "shorter episodes": "episodes that ended before the time limit: falls",
            "bytes": "the compact file",
            "CPU minutes": "of the whole process without the evaluation: start, environment steps, training",
        },
        limits=[
            "One teacher per row, trained by rl-zoo3 for a million steps. The seeds are those of the distillation.",
            "The sparsity is that of the network that acts. Critics are not part of the file.",
            "Hopper agents fall by themselves, so a ratio above 1 says that a student falls less, not that it learnt more.",
        ],
        settings={
            "agents": "`rl-trained-agents`, the public collection that rl-zoo3 trained; networks of 256-256",
            "student": "of the same widths, with the settings of `distill` for each sparsity",
            "evaluation": f"{episodes} episodes per student, calibration of the 8 bits on other episodes of its own",
            "seeds": f"{results['seeds']} of the distillation, as many as there are returns; the others have not been run yet",
        },
        commands=[
            "python benchmarks/distill.py sac-HalfCheetah-v4.zip tqc-HalfCheetah-v4.zip sac-Hopper-v4.zip tqc-Hopper-v4.zip"
            " \\\n    --sparsities 0.95 0.98 --json benchmarks/results/distill.json --png benchmarks/results/distill.png",
            "python benchmarks/distill.py ppo/Acrobot-v1_1/Acrobot-v1.zip a2c/Pendulum-v1_1/Pendulum-v1.zip \\\n"
            "    dqn/MountainCar-v0_1/MountainCar-v0.zip tqc/Pendulum-v1_1/Pendulum-v1.zip \\\n"
            "    ppo/Walker2d-v3_1/Walker2d-v3.zip --sparsities 0.95 --seeds 1 --json benchmarks/results/distill_others.json",
        ],
        figures={"distill": "Return of students over the teacher, by sparsity, with float and 8-bit weights"},
        files=["distill", "distill_others"],
    )
