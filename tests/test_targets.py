"""
Projects around the C header (``compress --target``), built as their users build them and run.

What Debian's tools can build is built here; where they are missing, the test is skipped.
"""

import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from stable_baselines3 import SAC

from sb3_sparse import compress
from sb3_sparse.cli import main
from sb3_sparse.export.targets import TARGETS, write_target
from tests.test_c import HEADS, HOST, perceptron


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


@pytest.mark.skipif(not HOST, reason="this processor has no SIMD registers that a header has code for")
@needs("cmake", "cc")
def test_cmake_with_simd(policy, tmp_path):
    policy.to_target(tmp_path, "cmake", name="pendulum")
    run("cmake", "-S", tmp_path / "pendulum_policy", "-B", tmp_path / "own", "-DPENDULUM_SIMD=ON")
    assert "-march=native" in run("cmake", "--build", tmp_path / "own", "--verbose")
    assert "100% tests passed, 0 tests failed out of 1" in run("ctest", "--test-dir", tmp_path / "own")


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


@pytest.mark.parametrize("target", TARGETS)
def test_only_c_for_computers_has_simd(policy, target, tmp_path):
    (header,) = (path for path in write_target(policy.network, target, tmp_path) if path.name == "policy_code.h")
    assert ("exported with simd=False" in header.read_text()) == (target != "cmake")


@pytest.mark.parametrize("target", TARGETS)
def test_masks(target, tmp_path):
    """The policy gives values, and the projects say what takes an action among them; a node that acts by itself refuses."""
    network = perceptron(HEADS["discrete"])
    if target == "ros2":
        with pytest.raises(
            ValueError, match=r"^the target 'ros2' does not support masks of actions, .*: use the target 'cmake'$"
        ):
            write_target(network, target, tmp_path, masks=True)
        assert not list(tmp_path.iterdir())
        return
    texts = [path.read_text() for path in write_target(network, target, tmp_path, masks=True) if path.name != "policy_code.h"]
    calls = [text for text in texts if "policy_act(" in text]
    assert calls and all(
        "policy_act(observation, values); /* policy_choose(values, allowed, choice)" in text for text in calls
    )
    assert all("static policy_action values[5];" in text for text in calls)


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


CORE = Path("/usr/share/arduino/hardware/arduino/avr")
AVR_FLAGS = [
    *"-DF_CPU=16000000L -DDECIMAL_DIG=9 -DARDUINO=10819 -DARDUINO_ARCH_AVR".split(),
    *"-Os -ffunction-sections -fdata-sections -Wl,--gc-sections".split(),
]
#: What stands in for a sketch: the same, but it stops where it would blink for ever.
STOP = """
#include <avr/sleep.h>
void stop() { Serial.flush(); cli(); sleep_enable(); sleep_cpu(); }
"""


@needs("avr-gcc", "avr-g++", "avr-size", "simavr")
@pytest.mark.skipif(not CORE.exists(), reason="missing: arduino-core-avr")
@pytest.mark.parametrize("arithmetic", ["integers", "floats"])
def test_arduino(policy, arithmetic, tmp_path):
    """The sketch with Arduino's own core on an emulated Uno: no test vector fails, and no table takes memory."""
    policy.to_target(tmp_path, "arduino", name="pendulum")
    library = tmp_path / "pendulum_policy"
    properties = dict(line.split("=", 1) for line in (library / "library.properties").read_text().splitlines())
    assert properties["name"] == library.name and properties["architectures"] == "*"
    source = library / "src/pendulum_policy.c"
    if arithmetic == "floats":
        source.write_text(source.read_text().replace("#define PENDULUM_INTEGER\n", ""))
    sketch = (library / "examples/SelfTest/SelfTest.ino").read_text()
    # What the IDE adds in front of a sketch.
    (tmp_path / "sketch.cpp").write_text(
        "#include <Arduino.h>\n" + STOP + sketch.replace("    digitalWrite", "    stop();\n    digitalWrite", 1)
    )
    flags = [
        "-mmcu=atmega328p",
        *AVR_FLAGS,
        "-I",
        CORE / "cores/arduino",
        "-I",
        CORE / "variants/standard",
        "-I",
        library / "src",
    ]
    run("avr-gcc", *flags, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-c", source, "-o", tmp_path / "policy.o")
    sections = {
        row[0]: int(row[1])
        for row in map(str.split, run("avr-size", "-A", tmp_path / "policy.o").splitlines())
        if len(row) == 3 and row[1].isdigit()
    }
    assert sections[".data"] == 0 and not any(name.startswith((".data.", ".rodata")) for name in sections)
    core = [
        file for file in (CORE / "cores/arduino").iterdir() if file.suffix in (".c", ".cpp", ".S") and "USB" not in file.name
    ]
    for file in core:
        compiler = ["avr-g++", "-std=gnu++11", "-fno-exceptions"] if file.suffix == ".cpp" else ["avr-gcc"]
        run(*compiler, "-w", *flags, "-c", file, "-o", tmp_path / f"{file.name}.o")
    objects = [tmp_path / f"{file.name}.o" for file in core]
    run(
        "avr-g++",
        "-std=gnu++11",
        *flags,
        tmp_path / "sketch.cpp",
        tmp_path / "policy.o",
        *objects,
        "-o",
        tmp_path / "sketch.elf",
    )
    output = run("simavr", "-m", "atmega328p", "-f", "16000000", tmp_path / "sketch.elf")
    assert "0 test vectors fail" in output and re.search(r"[0-9]+ us", output), output


#: What a build system gives to the CMakeLists.txt of a component: enough to build it on this machine.
STUBS = {
    "esp-idf": """
macro(idf_component_register)
  cmake_parse_arguments(given "" "" "SRCS;INCLUDE_DIRS;REQUIRES" ${ARGN})
  set(COMPONENT_LIB pendulum_policy)
  add_library(pendulum_policy ${given_SRCS})
  target_include_directories(pendulum_policy PUBLIC ${given_INCLUDE_DIRS})
endmacro()
""",
    "zephyr": """
macro(zephyr_library)
  add_library(pendulum_policy)
  target_include_directories(pendulum_policy PUBLIC include)
endmacro()
macro(zephyr_include_directories)
endmacro()
macro(zephyr_library_sources)
  target_sources(pendulum_policy PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/${ARGV0})
endmacro()
macro(zephyr_library_compile_definitions)
  target_compile_definitions(pendulum_policy PRIVATE ${ARGN})
endmacro()
set(CONFIG_PENDULUM_POLICY y)
""",
}


@needs("cmake", "cc")
@pytest.mark.parametrize("target", STUBS)
def test_components(policy, target, tmp_path):
    """Their CMakeLists.txt and C, with stubs in place of the build system and of the board's headers."""
    policy.to_target(tmp_path, target, name="pendulum")
    (tmp_path / "robot.c").write_text(ROBOT)
    find = f"set(CONFIG_PENDULUM_POLICY_INTEGER y)\n{STUBS[target]}\nadd_subdirectory(pendulum_policy)"
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER.format(find=find))
    run("cmake", "-B", "build", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror", cwd=tmp_path)
    run("cmake", "--build", "build", cwd=tmp_path)
    acts(policy, run("build/robot", cwd=tmp_path), 1e-2)
    example = next(tmp_path.rglob("main.c"))
    (tmp_path / "zephyr/sys").mkdir(parents=True)
    (tmp_path / "zephyr/sys/printk.h").write_text("#include <stdio.h>\n#define printk printf\n")
    (tmp_path / "start.c").write_text("void app_main(void);\nint main(void) { app_main(); return 0; }\n")
    sources = [example, tmp_path / "pendulum_policy/src/pendulum_policy.c", *[tmp_path / "start.c"] * (target == "esp-idf")]
    run("cc", "-Wall", "-I", tmp_path, "-I", tmp_path / "pendulum_policy/include", *sources, "-o", tmp_path / "example")
    assert run(tmp_path / "example").startswith("0 test vectors fail\naction")
    for file in tmp_path.rglob("*.yml"):
        assert yaml.safe_load(file.read_text())


#: As much of ROS 2 as the node uses: a message arrives, and what is published is printed.
RCLCPP = """
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>
#define RCLCPP_ERROR(logger, ...) (std::printf(__VA_ARGS__), std::printf("; "))
namespace rclcpp {
template <class T> struct Publisher {
    using SharedPtr = std::shared_ptr<Publisher<T>>;
    void publish(const T &message) { for (auto number : message.data) std::printf("%.9g ", (double)number); }
};
template <class T> struct Subscription {
    using SharedPtr = std::shared_ptr<Subscription<T>>;
    std::function<void(const std::shared_ptr<T>)> call;
};
inline std::vector<std::function<void(std::vector<float>)>> calls;
struct Node {
    Node(const std::string &) {}
    int get_logger() { return 0; }
    template <class T> auto create_publisher(const std::string &, int) { return std::make_shared<Publisher<T>>(); }
    template <class T, class F> auto create_subscription(const std::string &, int, F call) {
        calls.push_back([call](std::vector<float> data) {
            auto message = std::make_shared<T>();
            message->data = data;
            call(message);
        });
        return std::make_shared<Subscription<T>>();
    }
};
inline void init(int, char **) {}
inline void shutdown() {}
inline void spin(std::shared_ptr<Node>) { calls[0]({1.0f}); calls[0]({0.5f, -0.25f, 2.0f}); }
}
"""
MESSAGE = """
#pragma once
#include <memory>
#include <vector>
namespace std_msgs::msg { struct %s { using SharedPtr = std::shared_ptr<%s>; std::vector<%s> data; }; }
"""


@needs("g++")
def test_ros2(policy, tmp_path):
    """The node with stubs of ROS 2: an observation of a wrong size is refused, the action of another is Python's."""
    policy.to_target(tmp_path, "ros2", name="pendulum")
    package = tmp_path / "pendulum_policy"
    assert ElementTree.parse(package / "package.xml").findtext("name") == "pendulum_policy"
    (tmp_path / "rclcpp").mkdir()
    (tmp_path / "rclcpp/rclcpp.hpp").write_text(RCLCPP)
    (tmp_path / "std_msgs/msg").mkdir(parents=True)
    for name, kind in {"Float32MultiArray": "float", "Int32MultiArray": "int"}.items():
        file = f"{re.sub('(?<=[a-z0-9])(?=[A-Z])', '_', name).lower()}.hpp"
        (tmp_path / "std_msgs/msg" / file).write_text(MESSAGE % (name, name, kind))
    run("g++", "-std=c++17", "-Wall", "-Wextra", "-I", tmp_path, package / "src/pendulum_node.cpp", "-o", tmp_path / "node")
    refused, action = run(tmp_path / "node").split("; ")
    expected, _ = policy.predict(np.array([0.5, -0.25, 2], np.float32))
    assert refused == "an observation has 1 numbers and needs 3" and abs(float(action) - expected[0]) < 1e-5


GUIDE = (Path(__file__).parent.parent / "docs/guide/microcontroller.md").read_text().split("## From a zip to a board")[1]
#: The lines of shell of each target in the guide, by its heading.
BLOCKS = dict(re.findall(r"^### ([^\n]+)\n\n```bash\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE))


def follow(block, folder):
    """Run the first line of a block, with a small agent and little calibration; what is left of the block."""
    model = SAC("MlpPolicy", "Pendulum-v1", buffer_size=1, seed=0, device="cpu", policy_kwargs={"net_arch": [16, 16]})
    model.save(folder / "agent.zip")
    command, rest = block.split("\n", 1)
    assert command.startswith("sb3-sparse compress agent.zip ") and block.count("\n") <= 10
    main([*shlex.split(command)[1:], "--episodes", "1", "--calibration-steps", "200", "--no-latency"])
    return rest


def test_the_guide_has_a_block_for_each_target():
    assert len(BLOCKS) == 1 + len(TARGETS)
    assert all(sum(f"--target {target}\n" in block for block in BLOCKS.values()) == 1 for target in TARGETS)


@pytest.mark.parametrize("heading", ["ESP-IDF", "Zephyr", "ROS 2"])
def test_blocks_of_the_guide_find_the_project(heading, tmp_path, monkeypatch):
    """Those whose tool is not here."""
    monkeypatch.chdir(tmp_path)
    rest = follow(BLOCKS[heading], tmp_path)
    paths = re.findall(r"\bout/[\w/.-]+", rest)
    assert paths and all(Path(path).exists() for path in paths)
    if heading == "ROS 2":
        package = Path("out/ros2/agent_policy")
        assert "project(agent_policy)" in (package / "CMakeLists.txt").read_text()
        assert "agent_node" in (package / "CMakeLists.txt").read_text() and "agent_node" in rest
        assert 'Node("agent_policy")' in (package / "src/agent_node.cpp").read_text()
        assert "/agent_policy/observation" in rest and "/agent_policy/action" in rest


@pytest.mark.parametrize(
    "heading",
    [
        pytest.param("CMake", marks=needs("cmake", "cc")),
        pytest.param("Plain C", marks=needs("cc", "arm-none-eabi-gcc", "qemu-system-arm")),
        pytest.param(
            "Arduino",
            marks=[
                pytest.mark.slow,
                needs("avr-gcc", "simavr", "make"),
                pytest.mark.skipif(not Path("/usr/share/arduino/Arduino.mk").exists(), reason="missing: arduino-mk"),
            ],
        ),
    ],
)
def test_blocks_of_the_guide_run(heading, tmp_path, monkeypatch):
    """As written, up to the self test."""
    monkeypatch.chdir(tmp_path)
    rest = follow(BLOCKS[heading], tmp_path)
    result = subprocess.run(["bash", "-ec", rest], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    # The sketch of Arduino runs until its time is over.
    assert result.returncode == (124 if heading == "Arduino" else 0), result.stdout[-3000:]
    assert result.stdout.count("0 of 8 test vectors fail") == 2 * (heading == "Plain C"), result.stdout
    if heading == "CMake":
        assert "0 test vectors fail" in result.stdout and "100% tests passed, 0 tests failed out of 1" in result.stdout
    if heading == "Arduino":
        assert "0 test vectors fail" in result.stdout and re.search(r"[0-9]+ us", result.stdout)
