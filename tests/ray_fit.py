"""
Searches on Ray, for tests: ``actors FOLDER`` tries the workers alone, ``lost FOLDER`` prints what a search finds that loses
one of two nodes while both train.
"""

import json
import os
import signal
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path

from sb3_sparse import fit
from sb3_sparse.distillation.search.workers import hire
from sb3_sparse.distillation.search.workers.trial import OutOfTime
from tests.ray_cluster import two_nodes
from tests.test_fit import SMALL, cartpole


class Trying:
    """Stands for a workshop, and writes down what becomes of it."""

    def __init__(self, folder, is_over):
        self.folder, self.is_over = folder, is_over
        warnings.warn("it begins", RuntimeWarning, stacklevel=1)

    def square(self, number):
        warnings.warn(f"{number % 2}", UserWarning, stacklevel=1)
        return number**2

    def die(self, times):
        """The first times that somebody tries it."""
        tries = len(list(self.folder.glob("try*")))
        (self.folder / f"try{tries}").touch()
        if tries < times:
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"

    def gather(self, count):
        """With others, so that each is here."""
        (self.folder / f"here{os.getpid()}").touch()
        while len(list(self.folder.glob("here*"))) < count:
            time.sleep(0.05)

    def fail(self):
        raise ArithmeticError("one sentence")

    def wait(self):
        (self.folder / f"waiting{os.getpid()}").touch()
        while not self.is_over():
            time.sleep(0.05)
        (self.folder / f"interrupted{os.getpid()}").touch()
        raise OutOfTime

    def close(self):
        (self.folder / f"closed{os.getpid()}").touch()


def find(works, folder):
    """Results of two actors, and the error that ended them."""
    crew, found = hire("ray", 2, partial(Trying, folder)), []
    try:
        for work, result in crew.run(iter(works)):
            found.append((work, result))
    except (ArithmeticError, KeyboardInterrupt, ValueError) as error:
        return found, error
    finally:
        crew.close()
    return found, None


def try_actors(folder):
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    count = lambda name: len(list(folder.glob(f"{name}*")))  # noqa: E731

    # Twice lost and found again, among others whose warnings arrive once each.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, error = find([("die", (2,)), *(("square", (number,)) for number in range(6))], folder)
    assert error is None and count("try") == 3
    assert dict(found) == {("die", (2,)): "alive"} | {("square", (number,)): number**2 for number in range(6)}
    kinds = {"it begins": RuntimeWarning, "0": UserWarning, "1": UserWarning}
    ours = [each for each in caught if str(each.message) in kinds]
    assert len(ours) == 3 and {str(each.message): each.category for each in ours} == kinds

    found, error = find([("square", (3,)), ("fail", ())], folder)
    assert type(error) is ArithmeticError and str(error) == "one sentence"

    found, error = find([("die", (9,))], folder)
    assert not found and "Ray has lost 3 workers at the same work" in str(error) and count("try") == 6

    # All of four are lost while they are free: nobody has begun what comes next.
    crew = hire("ray", 4, partial(Trying, folder))
    assert len(list(crew.run(iter([("gather", (4,))] * 4)))) == 4
    for file in folder.glob("here*"):
        os.kill(int(file.name.removeprefix("here")), signal.SIGKILL)
    with warnings.catch_warnings(action="ignore"):
        assert list(crew.run(iter([("square", (5,))]))) == [(("square", (5,)), 25)]
    crew.close()

    # Ctrl-C: those who work see it, and nobody is killed before they have ended.
    def interrupt():
        while count("waiting") < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = count("closed")
    threading.Thread(target=interrupt).start()
    found, error = find([("wait", ())] * 3, folder)
    assert isinstance(error, KeyboardInterrupt) and not found
    assert count("waiting") == count("interrupted") == 2 and count("closed") == before + 2
    ray.shutdown()


def lose_a_node(folder):
    def both_train():
        return len(list(folder.glob("candidates/*/training/*.pt"))) == 2

    with two_nodes(both_train):
        front = fit(cartpole(), "CartPole-v1", keep=0.9, checkpoint=folder, backend="ray", **SMALL | {"jobs": None})
    assert front.about["jobs"] == 2
    print(json.dumps([[str(point), point.bytes, point.returns] for point in front.evaluated]))


if __name__ == "__main__":
    {"actors": try_actors, "lost": lose_a_node}[sys.argv[1]](Path(sys.argv[2]))
