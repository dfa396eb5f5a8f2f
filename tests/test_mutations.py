"""Damaged and hostile files end in a sentence or in a right result; see ``tests/mutations.py``."""

import io
import pickle
import zipfile

import pytest
import torch as th
from stable_baselines3 import SAC

from sb3_sparse.agents import archive, load_agent
from sb3_sparse.agents.archive import read_policy
from tests.canary import Canary
from tests.mutations import survive
from tests.old_zips import rewrite

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("count", "kinds"),
    [(12, ["ppo", "dict", "recurrent", "masked"]), pytest.param(400, [], marks=pytest.mark.slow, id="all")],
)
def test_mutations(count, kinds, tmp_path):
    ends, failures = survive(count, seed=7, folder=tmp_path, kinds=kinds)
    assert not failures and min(ends["right"], ends["a sentence"]) > count / 10


@pytest.fixture
def agent(tmp_path):
    path = tmp_path / "agent.zip"
    SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu").save(path)
    return path


def replace_policy(agent, content):
    """Another ``policy.pth`` in a zip."""
    with zipfile.ZipFile(agent) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(agent, "w", zipfile.ZIP_DEFLATED) as target:
        for name, part in (parts | {"policy.pth": content}).items():
            target.writestr(name, part)


def saved(value):
    """A file of torch."""
    file = io.BytesIO()
    th.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("net_arch", [[10**5, 10**5], [2**40], {"pi": [8], "qf": [10**5] * 9}])
def test_settings_that_ask_for_memory(net_arch, agent):
    rewrite(agent, policy_kwargs=pickle.dumps({"net_arch": net_arch}))
    with pytest.raises(ValueError, match=r"cannot be loaded as SAC .*its settings ask for more weights than the file holds"):
        load_agent(agent)


def test_tensors_without_memory(agent):
    """A number with strides of 0 passes for a million million."""
    replace_policy(agent, saved({"actor.mu.weight": th.zeros(1).expand(10**6, 10**6)}))
    with pytest.raises(ValueError, match="is damaged: its policy does not consist of tensors"):
        read_policy(agent)


def test_zips_that_unpack_to_much(agent, monkeypatch):
    monkeypatch.setattr(archive, "_LARGE", 1000)
    replace_policy(agent, bytes(10**8))
    with pytest.raises(ValueError, match=r"agent.zip has \d+,\d+ bytes and would unpack to 100,\d+,\d+"):
        read_policy(agent)


def test_names_that_cannot_be_printed(agent):
    rewrite(agent, policy_class=b"cstable_bas\x01\x1b[1mlines3.sac.policies\nSACPolicy\n.")
    with pytest.raises(ValueError, match=r"it names stable_bas\?\?\[1mlines3.sac.policies.SACPolicy in the pickle") as caught:
        load_agent(agent)
    assert str(caught.value).isprintable()


def test_parts_that_cannot_be_printed(agent):
    """A byte of a part, and of its name in both places."""
    with zipfile.ZipFile(agent) as source, zipfile.ZipFile(written := io.BytesIO(), "w") as target:
        for name in source.namelist():
            target.writestr(name.replace("data", "d\x1ata"), source.read(name) + b"uncompressed")
    agent.write_bytes(written.getvalue().replace(b"uncompressed", b"uncompressee", 1))
    with pytest.raises(ValueError, match=r"its part 'd\?ta' fails the checksum"):
        read_policy(agent)


def test_torch_does_not_advise_to_trust(agent):
    replace_policy(agent, saved({"actor.mu.weight": Canary()}))
    with pytest.raises(ValueError, match=r"not a zip \(it holds more than tensors: .*sing.*\); save or copy") as caught:
        read_policy(agent)
    assert "weights_only" not in str(caught.value)
