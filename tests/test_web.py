"""The web page of a policy: its actions are Python's, its environments are Gymnasium's, and both agents play."""

import configparser
import json
import re
import shutil
import subprocess

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_sparse import compress
from sb3_sparse.cli import main
from sb3_sparse.export.web import ENVIRONMENTS, Entry, make_page
from sb3_sparse.runtime import load
from tests.algorithms import CASES
from tests.browser import browse
from tests.house import ROOT

WEB = ROOT / "sb3_sparse/export/web"


def content_of(page):
    """What a page holds, as its script reads it."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text())[1])


def found_in(page, script, tmp_path):
    """The object ``found`` after a script on the finished page, which logged nothing."""
    whole = f"""ready.then(async () => {{
        const found = {{}};
        const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
        {script}
        document.body.dataset.found = JSON.stringify(found);
    }});"""
    document, log = browse(page, whole, tmp_path, budget=20000)
    assert "CONSOLE" not in log
    return json.loads(re.search(r'data-found="(.*?)"', document)[1].replace("&quot;", '"'))


def models():
    """Policies with all heads of environments that the page has, with and without memory."""
    sparse = {"sparsity": 0.7}
    yield CASES["dqn"].make(sparse=True, policy_kwargs=sparse, seed=3)
    yield CASES["sac"].make(sparse=True, policy_kwargs=sparse)
    venv = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    venv.obs_rms.mean, venv.obs_rms.var = np.array([0.1, -0.2, 0.3]), np.array([0.5, 0.6, 9.0])
    settings = {"n_steps": 8, "device": "cpu", "seed": 3}
    yield PPO("MlpPolicy", venv, policy_kwargs={"net_arch": [16, 16], "activation_fn": th.nn.GELU}, batch_size=8, **settings)
    yield RecurrentPPO("MlpLstmPolicy", "CartPole-v1", policy_kwargs={"lstm_hidden_size": 8}, **settings)


def actions_of(who, observations, *, one_by_one):
    """Deterministic actions, ``[n, m]``; one by one, the observations are an episode."""
    if not one_by_one:
        return who.predict(observations, deterministic=True)[0].reshape(len(observations), -1)
    actions, state = [], None
    for index, each in enumerate(observations):
        action, state = who.predict(each, state=state, episode_start=np.array([index == 0]), deterministic=True)
        actions.append(np.asarray(action).reshape(-1))
    return np.array(actions)


def test_actions_are_those_of_python(tmp_path):
    """On 1,000 observations: of float policies those of SB3's predict, of 8-bit policies those of the numpy backend."""
    generator, entries, observations, expected = np.random.default_rng(0), [], [], []
    for model in models():
        for bits in (32, 8):
            policy = compress(model, bits=bits, backend="numpy")
            x = generator.normal(size=(1000, *policy.network.shape)).astype(np.float32)
            normalization, seen = model.get_vec_normalize_env(), x
            if normalization is not None and bits == 32:
                seen = normalization.normalize_obs(x)
            entries.append(Entry(f"{type(model).__name__} {bits}", policy._compressed))
            observations.append(x)
            expected.append(actions_of(model if bits == 32 else policy, seen, one_by_one=policy.network.remembers))
    page = tmp_path / "actions.html"
    page.write_text(make_page("actions", entries))
    script = f"""
    const observations = {json.dumps([x.tolist() for x in observations])};
    found.actions = policies.map((policy, i) => observations[i].map((x) => [policy.predict(x)].flat()));
    """
    found = found_in(page, script, tmp_path)["actions"]
    assert len(found) == 8
    for entry, ours, wanted in zip(entries, found, expected, strict=True):
        assert len(np.unique(wanted)) > 1, entry.name
        np.testing.assert_allclose(np.array(ours), wanted, rtol=1e-5, atol=1e-5, err_msg=entry.name)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The page of a student that is a sparse SAC agent, with a larger dense one beside it, and the folder of the files."""
    folder = tmp_path_factory.mktemp("web")
    CASES["sac"].make().save(folder / "teacher.zip")
    CASES["sac"].make(sparse=True, policy_kwargs={"net_arch": [8, 8], "sparsity": 0.5}).save(folder / "student.zip")
    command = [
        "compress",
        folder / "student.zip",
        "--env",
        "Pendulum-v1",
        "-o",
        folder,
        "--web",
        "--dense",
        folder / "teacher.zip",
    ]
    main([*map(str, command), "--episodes", "2", "--calibration-steps", "100", "--no-latency"])
    return folder / "student.html"


def test_content_of_the_page(played):
    content, report = content_of(played), json.loads((played.parent / "report.json").read_text())
    dense, sparse = content["players"]
    assert (content["env"], dense["name"], sparse["name"]) == ("Pendulum-v1", "teacher.zip in float32", "student.sb3s")
    assert sparse["bytes"] == (played.parent / "student.sb3s").stat().st_size < dense["bytes"]
    assert sparse["returns"] == report["returns"]["exported file"]
    assert sparse["weights"] == sum(layer["nonzero_after"] for layer in report["layers"])
    assert (dense["bits"], dense["weights"]) == (32, 3 * 16 + 16 * 16 + 16)
    assert [(layer["rows"], layer["columns"]) for layer in dense["layers"]] == [(16, 3), (16, 16), (1, 16)]
    # The teacher's returns are its own, over the same episodes.
    assert len(dense["returns"]) == 2 and dense["returns"] != report["returns"]["SB3 model"]


def test_both_agents_play(played, tmp_path):
    script = """
    const look = () => games.map((game) => [game.state.join(), game.canvas.toDataURL(), game.steps]);
    found.before = look();
    place("speed").value = "16";
    for (let tries = 0; tries < 100 && !games.every((game) => game.returns.length > 0); tries++) await later(100);
    found.after = look();
    found.returns = games.map((game) => game.returns[0]);
    found.captions = games.map((game) => game.caption.textContent);
    found.sizes = [...document.querySelectorAll("#sizes table")[0].tBodies[0].rows].map((row) => row.cells[4].textContent);
    found.check = place("check").textContent;
    found.answer = predict([1, 0, 0]);
    found.masks = [...document.querySelectorAll("#masks canvas")].map((each) => each.getBoundingClientRect().height);
    found.loaded = performance.getEntriesByType("resource").length;
    """
    found = found_in(played, script, tmp_path)
    content = content_of(played)
    for before, after in zip(found["before"], found["after"], strict=True):
        assert before[0] != after[0] and before[1] != after[1]
    assert all(-2000 < total < -1 for total in found["returns"]) and found["returns"][0] != found["returns"][1]
    assert all("mean return of 1 episodes" in caption for caption in found["captions"])
    means = [np.mean(player["returns"]) for player in content["players"]]
    assert [float(text) for text in found["sizes"]] == pytest.approx(means, abs=0.051)
    assert found["check"] == "Self test passed: teacher.zip in float32 and student.sb3s give Python's actions."
    action, _ = load(played.parent / "student.sb3s").predict(np.array([1, 0, 0], np.float32))
    assert found["answer"] == pytest.approx(action.tolist(), abs=1e-5)
    assert len(found["masks"]) == 6 and min(found["masks"]) >= 4 and found["loaded"] == 0


def episodes_of(name, steps):
    """Episodes of random actions, as their first states, actions, and what follows each action."""
    env, generator, left, episodes = gym.make(name).unwrapped, np.random.default_rng(0), steps, []
    env.action_space.seed(0)
    while left:
        observation, _ = env.reset(seed=left)
        if name == "MountainCarContinuous-v0":
            # Its state is float32 from the first step on.
            env.state = observation
        start, actions, rows, over = [*map(float, env.state)], [], [], False
        while left and not over and len(actions) < gym.spec(name).max_episode_steps:
            # An action is kept for some steps, so that states far from the first one are reached.
            if not actions or generator.random() < 0.2:
                action = env.action_space.sample()
            observation, reward, over, _, _ = env.step(action)
            actions.append(np.asarray(action).tolist())
            rows.append([*map(float, env.state), *map(float, observation), float(reward), float(over)])
            left -= 1
        episodes.append({"start": start, "actions": actions, "rows": rows})
    return episodes


def test_environments_are_those_of_gymnasium(played, tmp_path):
    """1,000 steps of each, every episode from the same first state: states, observations, rewards and ends."""
    specs = {name: [gym.spec(name).max_episode_steps, episodes_of(name, 1000)] for name in ENVIRONMENTS}
    script = f"""
    const specs = {json.dumps(specs)};
    found.names = Object.keys(ENVIRONMENTS);
    found.sizes = found.names.map((name) => ENVIRONMENTS[name].observe(ENVIRONMENTS[name].reset(Math.random)).length);
    found.limits = found.names.map((name) => ENVIRONMENTS[name].limit === specs[name][0]);
    found.errors = found.names.map((name) => specs[name][1].map(({{ start, actions, rows }}) => {{
        let state = start, error = 0;
        actions.forEach((action, i) => {{
            const next = ENVIRONMENTS[name].step(state, action), observation = ENVIRONMENTS[name].observe(next.state);
            state = next.state;
            const row = [...state, ...observation, next.reward, Number(next.terminated)];
            row.forEach((value, j) => (error = Math.max(error, Math.abs(value - rows[i][j]))));
            if (row.length !== rows[i].length) error = NaN;
        }});
        return error;
    }}));
    """
    found = found_in(played, script, tmp_path)
    assert found["names"] == list(ENVIRONMENTS)
    assert found["sizes"] == [inputs for inputs, _ in ENVIRONMENTS.values()] and all(found["limits"])
    for name, errors in zip(found["names"], found["errors"], strict=True):
        assert None not in errors and max(errors) < 1e-6, name


def test_a_policy_that_differs_from_python_plays_nothing(played, tmp_path):
    content = content_of(played)
    content["players"][1]["examples"]["actions"][3][0] += 1e-3
    page = tmp_path / "wrong.html"
    page.write_text(re.sub(r'(?<=id="data">).*?(?=</script>)', lambda _: json.dumps(content), played.read_text()))
    script = """ready.catch((error) => {
        let refused = "";
        try { predict([1, 0, 0]); } catch (error) { refused = error.message; }
        document.body.dataset.found = [policies.length, games.length, refused].join();
    });"""
    document, _ = browse(page, script, tmp_path)
    assert "The policies do not work here: student.sb3s gives the action" in document
    assert 'data-found="0,0,the policies are not loaded, or failed their check"' in document


def test_wrong_observations_are_refused(played, tmp_path):
    script = """
    found.errors = [[1, 0], [1, 0, "2"], [1, 0, null], 1, undefined].map((observation) => {
        try { return String(predict(observation)); } catch (error) { return error.message; }
    });
    found.same = [predict(new Float64Array([1, 0, 2])), predict([[1, 0, 2]])];
    """
    found = found_in(played, script, tmp_path)
    assert set(found["errors"]) == {"this policy takes an observation of 3 numbers"}
    assert found["same"][0] == found["same"][1]


def test_a_title_cannot_leave_its_place(tmp_path):
    policy = compress(CASES["sac"].make())
    text = make_page("<script>a</script>", [Entry("</script><b>", policy._compressed)])
    assert text.count("<script>") == 1 and text.count("</script>") == 2 and "<b>" not in text


def test_a_page_is_small():
    """As the guide says: all but the plans takes less than 50 kB."""
    policy = compress(CASES["sac"].make())
    text = make_page("small", [Entry("small", policy._compressed)], "Pendulum-v1")
    assert len(text) - len(json.loads(re.search(r'id="data">(.*?)</script>', text)[1])["players"][0]["plan"]) < 50_000


def test_from_python(tmp_path):
    model = CASES["dqn"].make(sparse=True, policy_kwargs={"sparsity": 0.5})
    compress(model).to_html(tmp_path / "pole.html", env="CartPole-v1", dense=compress(model, bits=32))
    content = content_of(tmp_path / "pole.html")
    assert [(each["name"], each["bits"]) for each in content["players"]] == [("dense", 32), ("pole", 8)]
    assert content["env"] == "CartPole-v1" and content["players"][1]["returns"] == []
    for env, sentence in (("Acrobot-v1", "does not fit Acrobot-v1"), ("Ant-v5", "cannot play Ant-v5: it has Acrobot-v1, ")):
        with pytest.raises(ValueError, match=sentence):
            compress(model).to_html(tmp_path / "other.html", env=env)
    assert not (tmp_path / "other.html").exists()


def test_what_the_page_cannot_hold(tmp_path):
    settings = {"n_steps": 8, "batch_size": 8, "device": "cpu"}
    image = PPO(
        "CnnPolicy", FakeImageEnv(40, 40), policy_kwargs={"features_extractor_kwargs": {"features_dim": 8}}, **settings
    )
    parts = PPO("MultiInputPolicy", SimpleMultiObsEnv(), **settings)
    classes = PPO("MlpPolicy", "FrozenLake-v1", **settings)
    frames = PPO("MlpPolicy", VecFrameStack(DummyVecEnv([lambda: gym.make("CartPole-v1")]), 2), **settings)
    for model, frame_stack, what in (
        (image, None, "the network takes images"),
        (parts, None, "the network has parts="),
        (classes, None, "the network has parts="),
        (frames, 2, "the network has stack="),
    ):
        with pytest.raises(ValueError, match=f"{what}.*, which the web page does not support: write a C header"):
            compress(model, frame_stack=frame_stack).to_html(tmp_path / "page.html")


@pytest.mark.parametrize(
    ("algorithm", "options", "sentence"),
    [
        ("sac", ["--dense", "other.zip"], "--dense is the agent of the page that --web writes"),
        ("sac", ["--web", "--dense", "dqn.zip"], "dqn.zip has other observations or actions than sac.zip"),
        ("maskable_ppo", ["--web"], "maskable_ppo.zip chooses among actions that are allowed"),
    ],
)
def test_wrong_options(algorithm, options, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in {algorithm, "dqn"}:
        CASES[name].make().save(f"{name}.zip")
    with pytest.raises(SystemExit):
        main(["compress", f"{algorithm}.zip", "-o", "out", *options])
    assert sentence in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_environment_that_the_page_does_not_have(tmp_path, capsys):
    """The page is written, and nobody plays on it."""
    CASES["sac"].make().save(tmp_path / "sac.zip")
    command = ["compress", str(tmp_path / "sac.zip"), "-o", str(tmp_path), "--web", "--env", "Pendulum-v1"]
    main([*command, "--env-kwargs", "g:9.81", "--episodes", "1", "--calibration-steps", "0", "--no-latency"])
    assert "nobody plays on the page: it has Acrobot-v1, " in capsys.readouterr().out
    content = content_of(tmp_path / "sac.html")
    assert content["env"] is None and len(content["players"][0]["returns"]) == 1


def test_the_kernel_is_that_of_its_sources(tmp_path):
    """Other versions of clang write other bytes."""
    clang = shutil.which("clang")
    if clang is None or shutil.which("wasm-ld") is None or shutil.which("make") is None:
        pytest.skip("clang and lld are not installed")
    if " 14." not in subprocess.run([clang, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]:
        pytest.skip("clang is not version 14")
    built = tmp_path / "kernel.wasm"
    subprocess.run(["make", "-s", "kernel", f"KERNEL={built}"], cwd=ROOT, check=True, timeout=60)
    assert built.read_bytes() == (WEB / "kernel.wasm").read_bytes(), "the C kernels have changed: run make kernel"


def test_setup_cfg_ships_the_page():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["sb3_sparse.export.web"].split()
    shipped = {path for pattern in patterns for path in WEB.glob(pattern)}
    assert shipped == {path for path in WEB.iterdir() if path.is_file() and path.suffix != ".py"}
