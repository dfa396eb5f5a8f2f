"""Environment steps per second on Atari, and what the replay buffer saves."""

from ..markdown import estimate, number, percent, table
from ..page import Page
from ..stored import stored


def page() -> Page:
    """
    :return: The page
    """
    speed, replay = stored("atari_speed"), stored("replay")
    variants = {
        "fused": "fused Adam",
        "channels_last": "channels last",
        "fused+channels_last": "both, as in the dense recipes",
        "fused+channels_last+4envs": "both, and four games at a time",
        "pruned0.9": "fused Adam, 90 % pruned",
        "pruned0.9+channels_last": "both, 90 % pruned, as in the recipes for pruning",
    }
    groups = {"dqn": "DQN, NatureCNN", "dqn_resnet": "DQN, residual network", "qrdqn": "QR-DQN", "ppo": "PPO, eight games"}
    ratios, bounds = speed["ratios"], speed["intervals"]

    def cell(key: str) -> str:
        return estimate(ratios[key], bounds[key], 2) if key in ratios else ""

    masks = ratios["dqn/fused+channels_last"] / ratios["dqn/pruned0.9+channels_last"] - 1
    residual = ratios["dqn_resnet/fused+channels_last"] / ratios["dqn_resnet/pruned0.9+channels_last"] - 1
    sizes = {who: replay["bytes_per_transition"][who] / 1000 for who in ("sb3", "ours")}
    return Page(
        title="Training from pixels: speed and memory",
        question=(
            "What makes training on Atari faster on a CPU by configuration alone, and what does `FrameReplayBuffer` save?"
        ),
        answer=(
            f"Fused Adam and the channels-last format together give {ratios['dqn/fused+channels_last']:.2f} times the steps"
            f" per second of stock DQN, and {ratios['dqn/pruned0.9+channels_last']:.2f} times with 90 % pruned. A million"
            f" transitions take {sizes['ours']:.1f} GB instead of {sizes['sb3']:.1f} GB."
        ),
        tables=[
            "## Environment steps per second over stock",
            table(
                ("", *groups.values()),
                [(label, *(cell(f"{group}/{variant}") for group in groups)) for variant, label in variants.items()],
            ),
            "## The replay buffer over SB3's",
            table(
                ("", "over SB3's", "SB3", "FrameReplayBuffer"),
                [
                    ("transitions added per second, while it fills", *_replay("add_first")),
                    ("transitions added per second, once it is full", *_replay("add")),
                    ("batches sampled per second", *_replay("sample")),
                    (
                        "bytes per transition",
                        f"{replay['ratios']['replay/bytes']:.3f}",
                        *(number(replay["bytes_per_transition"][who]) for who in ("sb3", "ours")),
                    ),
                ],
            ),
        ],
        columns={
            "steps per second over stock": (
                "everything counted: the games, acting, storing, sampling and updates; median over rounds and "
                "its 95 % interval"
            ),
            "fused Adam": "torch's fused Adam, which the pruning callbacks switch on",
            "channels last": "`ChannelsLastCallback`",
            "four games at a time": (
                "`n_envs:4 gradient_steps:4`: four updates follow sixteen steps, which is a slightly different algorithm"
            ),
            "SB3, FrameReplayBuffer": "microseconds of one call, or bytes",
        },
        limits=[
            (
                f"Sparsity does not make torch's layers faster. Masks lengthen a step of DQN by {percent(masks)} with"
                f" NatureCNN at a batch of 32, more than the 3 % that the package allows itself, and {percent(residual)} with"
                " the residual network."
            ),
            "One core of a busy machine. Times are CPU times, and ratios are of variants that took turns.",
            "The replay buffer of the speed measurement is SB3's and small. A large one costs more than it shows.",
            (
                f"The buffer was measured with {number(replay['transitions'])} transitions; the bytes of a million are a"
                " million times those of one."
            ),
        ],
        settings={
            "task": "Pong at the settings of the recipes (batch 32, an update every fourth step)",
            "rounds": f"{speed['rounds']} (speed), {replay['rounds']['add']} to {replay['rounds']['add_first']} (buffer)",
            "stock's steps per second": ", ".join(
                f"{groups[group]}: {value:.0f}" for group, value in speed["stock_steps_per_second"].items()
            ),
        },
        commands=[
            "taskset -c 1 python -m benchmarks.speed.atari_speed --json benchmarks/results/atari_speed.json",
            "taskset -c 1 python -m benchmarks.speed.replay --json benchmarks/results/replay.json",
        ],
        files=["atari_speed", "replay"],
    )


def _replay(what: str) -> tuple[str, ...]:
    results = stored("replay")
    ratio = estimate(results["ratios"][f"replay/{what}"], results["intervals"][f"replay/{what}"], 2)
    return ratio, *(f"{results['microseconds'][f'{who}/{what}']:,.0f} µs" for who in ("sb3", "ours"))
