"""
The command ``sb3-sparse``:

    sb3-sparse train --algo sac --env Pendulum-v1 --recipe gmp --sparsity 0.95    rl-zoo3's train with our recipes
    sb3-sparse enjoy --algo sac --env Pendulum-v1                                 rl-zoo3's enjoy
    sb3-sparse summary agent.zip                                                  connections, neurons, FLOPs and bytes
    sb3-sparse compress agent.zip --env Pendulum-v1 -o out/                       a small, fast policy, compared with SB3's
    sb3-sparse distill agent.zip --env Pendulum-v1 -o student.zip                 a smaller agent that acts as it does
    sb3-sparse fit agent.zip --env Pendulum-v1 --flash 4k                         the best policy that fits
    sb3-sparse benchmark run smoke                                                what is missing of a grid of trainings
    sb3-sparse benchmark report smoke                                             its tables, figures and verdicts
"""

from sb3_sparse.cli.main import main

__all__ = ["main"]
