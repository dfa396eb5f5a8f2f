"""``distill``: a trained agent to a smaller one, in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.callbacks import GradualPruningCallback
from sb3_sparse.distillation.checkpoint import Checkpoint
from sb3_sparse.distillation.checks import check_model, check_number, check_whole, read_callbacks
from sb3_sparse.distillation.experience.source import Given, open_source
from sb3_sparse.distillation.learning.network import mask_sparsity, read_network
from sb3_sparse.distillation.learning.rewiring import Rewiring
from sb3_sparse.distillation.learning.rounding import Rounding
from sb3_sparse.distillation.learning.training import BLOCK, NETWORK
from sb3_sparse.distillation.lesson import Lesson
from sb3_sparse.distillation.plan import PRUNING, PRUNINGS, ROUNDS, Plan, make_plan
from sb3_sparse.distillation.progress import ProgressBar
from sb3_sparse.distillation.refinement import Refinement, find_last_phase
from sb3_sparse.distillation.student import make_student
from sb3_sparse.distillation.teacher import Teacher
from sb3_sparse.engine import EngineCallback
from sb3_sparse.nn import check_bits
from sb3_sparse.sparsity import ChosenDistribution, Saliency, check_sparsity


def distill(
    model: BaseAlgorithm,
    env: Given,
    sparsity: float = 0.95,
    net_arch: Sequence[int] | None = None,
    bits: int | None = None,
    steps: int | None = None,
    updates: int | None = None,
    seed: int = 0,
    *,
    saliency: str | Saliency = "fisher",
    distribution: ChosenDistribution | None = None,
    rewire: float = 0.0,
    stop_at: float | None = None,
    activation_bits: int | None = None,
    critic_updates: int = 0,
    normalization: VecNormalize | None = None,
    callback: MaybeCallback = None,
    engine: bool = True,
    checkpoint: str | Path | None = None,
    tensorboard_log: str | None = None,
    progress_bar: bool = False,
    verbose: int = 0,
) -> BaseAlgorithm:
    """
    Train a smaller student to act as a trained agent does: a model of the same class that predicts, saves and goes on training
    as any other, and whose weights are mostly zero.

        student = distill(SAC.load("expert"), "HalfCheetah-v4", sparsity=0.95)
        student.save("student")
        compress(student).to_c("student.h")

    The student begins with the teacher's weights and is pruned gradually while it learns the teacher's deterministic actions,
    by supervised learning (Hinton et al. 2015; Rusu et al. 2016 for policies). The states come from the student's own episodes
    (Ross et al. 2011), and from segments of both agents with noisy actions. Weights are ranked by ``|w| * sqrt(v)`` with
    Adam's second moments v. The moving average of the weights is what the student gets.

    :param model: The trained agent: SAC, TD3, DDPG, TQC, CrossQ, PPO, A2C, TRPO, DQN, QRDQN or MaskablePPO.
    :param env: The environment that it was trained in, or its name. Recorded observations as the environment gives them, or an
        :class:`~sb3_sparse.offline.OfflineDataset`, do as well, but a student of these alone has not seen its own mistakes.
    :param sparsity: Share of zeros in the network that acts, over all its layers, in [0, 1).
    :param net_arch: Widths of the student's hidden layers, such as [64, 64]; None for the teacher's.
    :param bits: Bits of a weight. From 2 to 7, the student learns with weights of so many bits in the last 30 % of the
        updates, and in the end its weights are exactly those that ``compress`` exports. 8 and None leave them float:
        ``compress`` rounds them to 8 bits with hardly a loss. With 8, its inputs are normalized as with fewer bits, so that
        these can go on from its ``checkpoint``.
    :param steps: Environment steps; by default 300,000, and 400,000 above 96 %.
    :param updates: Gradient updates of 256 states each, rounded to a multiple of 5,000; by default 100,000, and 600,000 above
        96 %.
    :param seed: Seed of the environment, the minibatches and new weights. On one machine the same seed gives the same student.
    :param saliency: Which weights to keep: see :class:`~sb3_sparse.callbacks.GradualPruningCallback`.
    :param distribution: How many weights each layer keeps: likewise.
    :param rewire: Share of the connections that the first rewiring moves, once per round after the pruning; fewer later (Evci
        et al. 2020). It did not help where it was tried, at 95 and 98 % on HalfCheetah.
    :param stop_at: Stop early, once the student has its sparsity and its grid, when its mean return over the last rounds is
        this share of the teacher's; None for all updates. A phase through the critics follows all the same.
    :param activation_bits: Bits of the outputs of hidden layers, from 2 to 8, to which the student rounds them in the last
        30 % of the updates, as :class:`~sb3_sparse.callbacks.QATCallback` does; None for float ones.
    :param critic_updates: Updates of a last phase, in which the teacher's critics say which of the student's deviations cost
        return (Fujimoto and Gu 2021), rounded to a multiple of 1,000, such as 10,000; 0 for none. SAC, TD3, DDPG, TQC and
        CrossQ have such critics. It lifted SAC's HalfCheetah, and not TQC's. In an environment it takes 60,000 steps besides
        ``steps``. For callbacks it is a training of its own, whose steps begin at 0.
    :param normalization: The ``VecNormalize`` that the model was trained in; by default that of the environment.
    :param callback: Callbacks of SB3 for the training, whose steps are updates. ``model`` is the training in them, and its
        ``predict`` the student's.
    :param engine: Whether to train in the engine, where it knows the network.
    :param checkpoint: Folder for a run that can be interrupted: called again with the same arguments, it goes on, and ends as
        if it had not been. With other ``bits`` of at most 8 it goes on from 65 % of the updates: before, bits do not matter.
        One call at a time may use it.
    :param tensorboard_log: Folder of the log for tensorboard.
    :param progress_bar: Whether to show a progress bar.
    :param verbose: Verbosity level, as in SB3.
    :return: The student
    :raises ValueError: if an argument is wrong, the environment does not fit the model, or its deterministic action does not
        come from one network that the exporter knows
    """
    check_model(model, normalization, "distill")
    check_sparsity(sparsity)
    check_whole("seed", seed, 0)
    if stop_at is not None:
        check_number("stop_at", stop_at, 0)
    own_bits = None if bits is None or check_bits(bits) == 8 else bits
    if activation_bits is not None:
        check_bits(activation_bits, "activation_bits", "a rounded activation")
    widths = (own_bits, activation_bits)
    on_grid = widths != (None, None)
    if own_bits is not None and read_network(model).estimates > 1:
        raise ValueError(
            f"bits={bits}: {type(model).__name__} acts by the mean of its estimates, which no grid of training holds; leave"
            f" bits out, and round the student by compress(student, bits={bits}, calibration=observations)"
        )
    plan = make_plan(sparsity, updates, steps, rewire, BLOCK)
    last = find_last_phase(model, critic_updates, on_grid)
    rounding = [Rounding(*widths, *plan.rounding)] * on_grid
    others = [*read_callbacks(callback), *[ProgressBar()] * progress_bar, *[EngineCallback()] * engine]
    names = [getattr(each, "__name__", each) for each in (saliency, distribution)]
    arch = list(net_arch) if isinstance(net_arch, Sequence) else net_arch
    same = [type(model).__name__, sparsity, arch, plan, seed, *names, stop_at]
    run, beginning = repr([*same, *widths * on_grid]), repr(same)
    saver = None if checkpoint is None else Checkpoint(Path(checkpoint), run, beginning)
    with open_source(model, env, normalization) as source:
        if stop_at is not None and source.env is None:
            raise ValueError(
                "stop_at compares returns, and recorded observations have none: leave it out or give an environment"
            )
        teacher, student = Teacher(model, source.normalization, source.env), make_student(model, net_arch, seed)
        lesson = Lesson(
            teacher,
            student,
            source,
            plan,
            seed,
            on_grid=on_grid,
            coarse=on_grid or bits is not None,
            stop_at=stop_at,
            checkpoint=saver,
            verbose=verbose,
        )
        present = mask_sparsity(lesson.training.policy.student)
        if present > sparsity + 1e-3:
            raise ValueError(
                f"the agent is {present:.1%} sparse already, and pruned weights do not come back: give a higher sparsity"
            )
        lesson.training.tensorboard_log = tensorboard_log
        lesson.resume()
        lesson.train(plan.updates, [*_sparsifiers(plan, sparsity, saliency, distribution), *rounding, *others])
        student = lesson.end()
        if last is None:
            return student
        saver = None if checkpoint is None else Checkpoint(Path(checkpoint) / "critics", f"{run}{last}")
        lesson = Refinement(teacher, student, source, last, seed, checkpoint=saver, verbose=verbose)
        lesson.training.tensorboard_log = tensorboard_log
        lesson.resume()
        lesson.train(last.updates, others)
        return lesson.end()


def _sparsifiers(
    plan: Plan, sparsity: float, saliency: str | Saliency, distribution: ChosenDistribution | None
) -> list[BaseCallback]:
    """The callbacks that make a student sparse."""
    if not sparsity:
        return []
    freq = plan.updates // (ROUNDS * PRUNINGS)
    first = plan.initial_sparsity
    pruning = GradualPruningCallback(NETWORK, sparsity, 0.0, PRUNING, freq, saliency, distribution, initial_sparsity=first)
    found: list[BaseCallback] = [pruning]
    if plan.rewired:
        found.append(Rewiring(NETWORK, plan.rewired, plan.updates // ROUNDS))
    return found
