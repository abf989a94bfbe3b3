"""A real GPU is lent, used and taken back: real agents, real runners on CUDA, what NVML says of it.

``make test-gpu`` runs it on a machine with a GPU that nobody else uses, and where the sandbox works.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.demo.models import generate_llama
from agent.devices.nvml import Nvml, open_nvml

DEADLINE_S = 120.0
GRACE_S = 5.0
QUIET_S = 3.0
MODEL_BYTES = 1 << 30
# What the owner's command finds on its GPU before it begins: processes, and memory in use.
LOOK = """
import json, os, pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByUUID(os.environ["CUDA_VISIBLE_DEVICES"])
print(json.dumps({
    "devices": os.environ["PYRDMA_DEVICES"],
    "processes": [one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)],
    "used": pynvml.nvmlDeviceGetMemoryInfo(handle).used,
}))
"""
# A job that the owner starts without a word to the agent.
JOB = """
import sys, torch
held = torch.ones(1 << 28, device="cuda")
torch.cuda.synchronize()
print("begun", flush=True)
sys.stdin.readline()
"""


@dataclass
class Node:
    """An agent that lends the GPU."""

    folder: Path
    process: subprocess.Popen[str]

    def say(self, *words: str) -> Any:
        """Run a command against it; return the JSON that it prints."""
        done = subprocess.run(
            self.command(*words, "--json"), capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def command(self, *words: str) -> list[str]:
        """Return a command's words."""
        return [sys.executable, "-m", "agent", words[0], "--run-dir", str(self.folder / "run"), *words[1:]]

    def device(self) -> dict[str, Any]:
        """Return the GPU as its owner sees it."""
        found: dict[str, Any] = self.say("devices")["devices"][0]
        return found

    def lease(self, lease_id: str) -> dict[str, Any]:
        """Return a lease."""
        every = self.say("leases", "--all")["leases"]
        return next(one for one in every if one["id"] == lease_id)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition with a deadline; return its first true value."""
    end_s = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < end_s, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def nvml() -> Nvml:
    """Return the GPUs of this machine; the first one must be nobody's."""
    found = open_nvml()
    if found is None:
        pytest.skip("this machine has no GPU")
    assert not found.processes(found.devices()[0].gpu), "somebody uses the GPU"
    return found


@pytest.fixture(scope="module")
def node(nvml: Nvml, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start an agent on the first GPU, with a model of a GiB in its memory and a spare runner."""
    folder = tmp_path_factory.mktemp("node")
    model = folder / "model"
    generate_llama(model, MODEL_BYTES, seed=3)
    options = ["--name", "one", "--state-dir", str(folder / "state"), "--memory", "4GiB"]
    options += ["--grace", str(GRACE_S), "--quiet", str(QUIET_S)]
    begin = [sys.executable, "-m", "agent", "serve", "--run-dir", str(folder / "run"), *options]
    only = {"CUDA_VISIBLE_DEVICES": nvml.devices()[0].gpu}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(begin, stdout=log, stderr=log, text=True, env={**os.environ, **only})
    one = Node(folder, process)
    try:
        until(lambda: subprocess.run(one.command("status"), capture_output=True).returncode == 0, "it serves")
        one.say("publish", str(model), "--name", "m", "--state-dir", str(folder / "state"))
        yield one
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
        print((folder / "log").read_text())


@pytest.fixture
def gpu(nvml: Nvml, node: Node) -> Iterator[str]:
    """Return CUDA's name of the one GPU that is lent, with nothing but a spare of the agent's on it."""
    for other in nvml.devices()[1:]:
        node.say("withdraw", other.id, "--confirm", other.id)
    until(lambda: node.device()["state"] == "lent" and not node.device()["guests"], "the GPU is lent")
    yield nvml.devices()[0].gpu
    for one in node.say("leases")["leases"]:
        subprocess.run(node.command("stop", one["id"]), capture_output=True, check=True)
    node.say("donate", "--always")


def family(pid: int) -> set[int]:
    """Return a process and those below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return {pid, *(one.pid for one in psutil.Process(pid).children(recursive=True))}
    return set()


def chat(granted: dict[str, Any], tokens: int, *, stream: bool = False) -> Any:
    """Ask a lease's model; return the response of which nothing is read yet."""
    asked = {
        "model": granted["lease"]["model"],
        "messages": [{"role": "user", "content": "Who owns this GPU?"}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": stream,
    }
    request = urllib.request.Request(
        granted["endpoint"] + "/chat/completions",
        data=json.dumps(asked).encode(),
        headers={"Authorization": f"Bearer {granted['api_key']}", "Content-Type": "application/json"},
    )
    return urllib.request.urlopen(request, timeout=DEADLINE_S)


def test_a_lease_runs_on_the_gpu(node: Node, nvml: Nvml, gpu: str) -> None:
    """It answers from CUDA memory, NVML sees its runner, and the energy that it takes is counted."""
    before_mj = nvml.energy_mj(gpu)
    granted = node.say("run", "m")
    with chat(granted, 32) as answer:
        assert json.loads(answer.read())["usage"]["completion_tokens"] > 0
    runner = family(node.lease(granted["lease"]["id"])["pid"])
    assert runner & nvml.processes(gpu), "the runner computes on the GPU"
    spec, seen = nvml.devices()[0], node.device()
    assert (seen["id"], seen["kind"], seen["device_class"]) == ("gpu0", "gpu", spec.device_class)
    assert seen["memory_bytes"] == spec.memory_bytes
    after_mj = nvml.energy_mj(gpu)
    if before_mj is not None:
        assert after_mj is not None
        assert after_mj > before_mj
    print("start:", granted["start"])


def test_the_owner_has_the_gpu_alone(node: Node, nvml: Nvml, gpu: str) -> None:
    """Its command begins when no process and no memory of the guest, or of a spare, is on it."""
    granted = node.say("run", "m")
    with chat(granted, 8) as answer:
        answer.read()
    begun_s = time.monotonic()
    done = subprocess.run(
        node.command("mine", "--device", "gpu0", "--", sys.executable, "-c", LOOK),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    took_s = time.monotonic() - begun_s
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["devices"], seen["processes"]) == ("gpu0", [])
    assert seen["used"] < MODEL_BYTES, "the weights are gone from its memory"
    assert took_s < 2 + GRACE_S + 20
    print(f"yours after {took_s:.1f} s; in use {seen['used'] / 2**20:.0f} MiB")
    assert node.lease(granted["lease"]["id"])["reason"] == "the owner of gpu0 needs it"
    until(lambda: node.device()["state"] == "lent", "it is lent again")
    again = node.say("run", "m")
    with chat(again, 8) as answer:
        assert answer.status == 200


def test_a_guest_that_computes_is_killed_when_its_grace_is_over(node: Node, nvml: Nvml, gpu: str) -> None:
    """A kernel in flight, and CUDA's context, go with the process."""
    granted = node.say("run", "m")
    runner = family(node.lease(granted["lease"]["id"])["pid"])
    with chat(granted, 1500, stream=True) as answer:
        assert answer.readline()
        reading = threading.Thread(target=lambda: _drain(answer), daemon=True)
        reading.start()
        begun_s = time.monotonic()
        command = node.command("mine", "--device", "gpu0", "--", "true")
        done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S)
        took_s = time.monotonic() - begun_s
        reading.join(DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert not runner & nvml.processes(gpu)
    assert took_s < 2 + GRACE_S + 20
    print(f"a guest that computes is gone after {took_s:.1f} s, grace {GRACE_S:g} s")


def test_a_job_of_the_owner_takes_the_gpu_by_being_there(node: Node, nvml: Nvml, gpu: str) -> None:
    """Lent only while idle: NVML shows the job within 2 s, the guest goes, and it is lent again after."""
    node.say("donate", "gpu0", "--only-idle")
    granted = node.say("run", "m")
    with subprocess.Popen(
        [sys.executable, "-c", JOB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdin is not None
        assert job.stdout is not None
        until(lambda: job.pid in nvml.processes(gpu), "the job is on the GPU")
        begun_s = time.monotonic()
        until(lambda: node.device()["state"] != "lent", "the job is seen")
        seen_s = time.monotonic() - begun_s
        until(lambda: node.device()["state"] == "owned", "the guest has gone")
        assert f"the process {job.pid} of this machine uses it" in node.device()["wanted"]
        assert node.lease(granted["lease"]["id"])["state"] == "ended"
        refused = subprocess.run(node.command("run", "m"), capture_output=True, text=True)
        assert refused.returncode != 0
        assert "the owner of this node has gpu0" in refused.stderr
        assert nvml.processes(gpu) == {job.pid}, "no spare is left beside it"
        job.communicate("\n", timeout=DEADLINE_S)
    ended_s = time.monotonic()
    until(lambda: node.device()["state"] == "lent", "it is lent again")
    assert time.monotonic() - ended_s >= QUIET_S - 1
    assert seen_s < 2 + 1  # the command that asks takes a part of a second as well
    print(f"a job of the owner is seen within {seen_s:.1f} s")


def test_each_lease_has_a_gpu_of_its_own(node: Node, nvml: Nvml, gpu: str) -> None:
    """The second goes where no guest is; who takes one GPU back leaves the guest of the other alone."""
    if len(nvml.devices()) < 2:
        pytest.skip("this machine has one GPU")
    second = nvml.devices()[1].gpu
    node.say("donate", "gpu1")
    until(lambda: node.say("devices")["devices"][1]["state"] == "lent", "the second GPU is lent")
    guests = [node.say("run", "m") for _ in range(2)]
    for granted in guests:
        with chat(granted, 8) as answer:
            assert answer.status == 200
    runners = [family(node.lease(one["lease"]["id"])["pid"]) for one in guests]
    on = [[bool(one & nvml.processes(each)) for each in (gpu, second)] for one in runners]
    assert sorted(on) == [[False, True], [True, False]]
    done = subprocess.run(node.command("mine", "--device", "gpu1", "--", "true"), timeout=DEADLINE_S)
    assert done.returncode == 0
    states = [node.lease(one["lease"]["id"])["state"] for one in guests]
    assert states == ["ended" if there[1] else "active" for there in on]


def _drain(answer: Any) -> None:
    with contextlib.suppress(Exception):
        while answer.read(4096):
            pass
