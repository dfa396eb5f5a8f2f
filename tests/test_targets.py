"""
Projects around the C header (``compress --target``), built as their users build them and run.

What Debian's tools can build is built here; where they are missing, the test is skipped.
"""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from stable_baselines3 import SAC

from sb3_sparse import compress
from sb3_sparse.cli import main
from sb3_sparse.export.targets import TARGETS, write_target
from tests.test_c import perceptron


def needs(*tools):
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"missing: {', '.join(missing)}")


def run(*command, **kwargs):
    """What a command prints; it must succeed."""
    command = [str(part) for part in command]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, **kwargs)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-3000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def policy():
    """An exported agent of Pendulum, with integers."""
    model = SAC("MlpPolicy", "Pendulum-v1", buffer_size=1, seed=0, device="cpu", policy_kwargs={"net_arch": [16, 16]})
    return compress(model, calibration=np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32))


CONSUMER = """\
cmake_minimum_required(VERSION 3.13)
project(robot C)
{find}
add_executable(robot robot.c)
target_link_libraries(robot pendulum_policy)
"""
#: Two files that call the same functions.
ROBOT = """\
#include "pendulum_policy.h"
#include <stdio.h>
int main(void) {
    const float observation[3] = {0.5f, -0.25f, 2.0f};
    float action[1];
    pendulum_act(observation, action);
    printf("%d %.9g", pendulum_self_test(), action[0]);
    return 0;
}
"""


def acts(policy, output, tolerance):
    """What ROBOT prints: no test vector fails, and the action is Python's."""
    failures, action = output.split()
    expected, _ = policy.predict(np.array([0.5, -0.25, 2], np.float32))
    assert failures == "0" and abs(float(action) - expected[0]) < tolerance


@needs("cmake", "cc")
@pytest.mark.parametrize("integers", ["OFF", "ON"])
def test_cmake(policy, integers, tmp_path):
    """Its own test passes; another project uses it as a subfolder, and installed."""
    policy.to_target(tmp_path, "cmake", name="pendulum")
    library = tmp_path / "pendulum_policy"
    flags = [f"-DPENDULUM_INTEGER={integers}", "-DCMAKE_C_FLAGS=-Wall -Wextra -Wpedantic -Werror"]
    run("cmake", "-S", library, "-B", tmp_path / "own", f"-DCMAKE_INSTALL_PREFIX={tmp_path / 'installed'}", *flags)
    run("cmake", "--build", tmp_path / "own", "--target", "install")
    assert "100% tests passed, 0 tests failed out of 1" in run("ctest", "--test-dir", tmp_path / "own")
    for name, find in {
        "sub": "add_subdirectory(../pendulum_policy lib)",
        "found": "find_package(pendulum_policy REQUIRED)",
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "CMakeLists.txt").write_text(CONSUMER.format(find=find))
        (folder / "robot.c").write_text(ROBOT)
        run("cmake", "-B", "build", f"-DCMAKE_PREFIX_PATH={tmp_path / 'installed'}", *flags, cwd=folder)
        run("cmake", "--build", "build", cwd=folder)
        acts(policy, run("build/robot", cwd=folder), 1e-2 if integers == "ON" else 1e-5)


@needs("cmake", "cc")
def test_ctest_notices_a_wrong_policy(policy, tmp_path):
    policy.to_target(tmp_path, "cmake", name="pendulum")
    code = tmp_path / "pendulum_policy/include/pendulum_code.h"
    assert "= sb3s_tanh(v)" in code.read_text()
    code.write_text(code.read_text().replace("= sb3s_tanh(v)", "= -sb3s_tanh(v)"))
    run("cmake", "-S", tmp_path / "pendulum_policy", "-B", tmp_path / "build")
    run("cmake", "--build", tmp_path / "build")
    result = subprocess.run(["ctest", "--test-dir", tmp_path / "build"], capture_output=True, text=True)
    assert result.returncode != 0 and "1 tests failed out of 1" in result.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_without_integers(target, tmp_path):
    """No option for what is not there, also where an earlier policy had it; and no part of a template is left."""
    network = perceptron()
    before = write_target(network, target, tmp_path, name="arm")
    after = write_target(replace(network, ranges=None), target, tmp_path, name="arm")
    assert set(after) <= set(before) and {file for file in tmp_path.rglob("*") if file.is_file()} == set(after)
    for file in after:
        text = file.read_text()
        assert not re.search("@[A-Z]+@", text), file
        assert "INTEGER" not in text or file.name == "arm_code.h", file


def test_unknown_target(policy, tmp_path):
    with pytest.raises(ValueError, match=r"there is no target 'avr': choose from .*cmake"):
        policy.to_target(tmp_path, "avr")
    assert not list(tmp_path.iterdir())


def test_command(tmp_path, capsys):
    """A folder for each target in the output folder, named after the zip."""
    model = SAC("MlpPolicy", "Pendulum-v1", buffer_size=1, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    model.save(tmp_path / "Best Model.zip")
    main(["compress", str(tmp_path / "Best Model.zip"), "-o", str(tmp_path / "out"), "--target", "cmake", "--no-latency"])
    assert "written to" in capsys.readouterr().out
    assert (tmp_path / "out/cmake/best_model_policy/include/best_model_policy.h").exists()
    with pytest.raises(SystemExit):
        main(["compress", str(tmp_path / "Best Model.zip"), "-o", str(tmp_path / "no"), "--target", "toaster"])
    assert "there is no target 'toaster'" in capsys.readouterr().err and not (tmp_path / "no").exists()
