"""Providers of devices: static, idle, window, and how local use of processor and GPUs is seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest

from agent.devices.nvml import GpuUse, device_class
from agent.devices.processes import busy_ticks, cpu_ticks, group_is_gone, started_ticks, tree
from agent.devices.processor import Counted, ProcessorUse, others_cores
from agent.devices.provider import DeviceSpec, Idle, Moment, Static, Window
from agent.devices.uses import Uses

CPUS = tuple(DeviceSpec(f"cpu{one}", "cpu", "cpu", 1 << 30) for one in range(2))
FRIDAY_21 = 4 * 1440 + 21 * 60
FRIDAY_12 = 4 * 1440 + 12 * 60


class Use:
    """Local use that a test decides."""

    def __init__(self) -> None:
        self.used: dict[str, str] = {}

    def look(self, now_s: float) -> Mapping[str, str]:
        return self.used


def test_static_devices_are_always_lent() -> None:
    """Nothing wants them."""
    assert Static(CPUS).devices() == CPUS
    assert Static(CPUS).wants(Moment(0.0, 0)) == {}


def test_idle_devices_are_wanted_while_they_are_used_and_for_a_while_after() -> None:
    """Only those whose owner chose it; one that was never used is lent at once."""
    use = Use()
    idle = Idle(Static(CPUS), use, lambda one: one == "cpu0", quiet_s=60.0)
    assert idle.wants(Moment(0.0, 0)) == {}
    use.used = {"cpu0": "a job", "cpu1": "a job"}
    assert idle.wants(Moment(1.0, 0)) == {"cpu0": {"use": "a job"}}
    use.used = {}
    assert idle.wants(Moment(60.9, 0)) == {"cpu0": {"use": "a job"}}
    assert idle.wants(Moment(61.0, 0)) == {}


def test_an_idle_device_whose_owner_chose_otherwise_is_forgotten() -> None:
    """What was seen before does not come back with the choice."""
    use, watched = Use(), ["cpu0"]
    use.used = {"cpu0": "a job"}
    idle = Idle(Static(CPUS), use, lambda one: one in watched, quiet_s=60.0)
    assert idle.wants(Moment(1.0, 0))
    watched.clear()
    assert idle.wants(Moment(2.0, 0)) == {}
    use.used = {}
    watched.append("cpu0")
    assert idle.wants(Moment(3.0, 0)) == {}


def test_a_window_wants_devices_outside_its_hours_and_goes_with_idle() -> None:
    """Both reasons stand side by side."""
    use = Use()
    use.used = {"cpu0": "a job"}
    hours = {"cpu0": ("mon-fri 20:00-06:00",), "cpu1": ()}
    both = Window(Idle(Static(CPUS), use, lambda _: True), hours.__getitem__)
    assert both.wants(Moment(0.0, FRIDAY_21)) == {"cpu0": {"use": "a job"}}
    assert both.wants(Moment(0.0, FRIDAY_12)) == {
        "cpu0": {"use": "a job", "hours": "it is lent mon-fri 20:00-06:00 only"}
    }


def test_others_are_what_the_machine_computes_beside_us() -> None:
    """Differences of both counts over the time; never below nothing."""
    before = Counted(10.0, 100.0, 20.0)
    assert others_cores(before, Counted(12.0, 106.0, 22.0)) == 2.0
    assert others_cores(before, Counted(12.0, 101.0, 25.0)) == 0.0
    assert others_cores(before, Counted(10.0, 106.0, 22.0)) == 0.0


def test_the_processor_is_in_use_after_two_busy_looks_and_until_it_is_calm() -> None:
    """One look is a shell that starts; between both bounds it stays as it was."""
    cores = iter([0.0, 1.0, 1.0, 0.4, 0.2, 1.0, 0.0, 1.0])
    total = [0.0]

    def count(now_s: float) -> Counted:
        total[0] += next(cores)
        return Counted(now_s, total[0], 0.0)

    use = ProcessorUse(["cpu0", "cpu1"], 2, count)  # busy from half a core on, calm below a quarter
    seen = [bool(use.look(float(now))) for now in range(8)]
    assert seen == [False, False, True, True, False, False, False, False]


def test_our_own_tree_is_found_and_counted_apart() -> None:
    """A child that computes is ours, with all that it started; another process is not."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import time, sys\nwhile time.process_time() < 0.2: pass\nsys.stdin.read()"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 20
        while cpu_ticks(child.pid) < 10:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert child.pid in tree(os.getpid())
        assert 1 not in tree(os.getpid())
        assert busy_ticks() >= cpu_ticks(child.pid)
        assert started_ticks(child.pid) is not None
        assert not group_is_gone(child.pid)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        assert started_ticks(child.pid) is None or child.poll() is None
        child.communicate()
    assert group_is_gone(child.pid)
    assert started_ticks(child.pid) is None


class Gpus:
    """Two GPUs whose processes a test decides."""

    def __init__(self) -> None:
        self.running: dict[str, frozenset[int]] = {"GPU-a": frozenset(), "GPU-b": frozenset()}

    def devices(self) -> tuple[DeviceSpec, ...]:
        return tuple(DeviceSpec(f"gpu{one}", "gpu", "h100", 1, gpu) for one, gpu in enumerate(self.running))

    def processes(self, gpu: str) -> frozenset[int]:
        return self.running[gpu]

    def energy_mj(self, gpu: str) -> int | None:
        return None


def test_a_gpu_is_used_by_whatever_is_not_ours() -> None:
    """Our own runners are no local use."""
    gpus = Gpus()
    gpus.running = {"GPU-a": frozenset({os.getpid()}), "GPU-b": frozenset({1, os.getpid()})}
    assert GpuUse(gpus).look(0.0) == {"gpu1": "the process 1 of this machine uses it"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm4-40gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("", "gpu"),
    ],
)
def test_a_gpu_has_a_class_by_its_name(name: str, expected: str) -> None:
    """Policies name classes, products are named by their makers."""
    assert device_class(name) == expected


def test_energy_is_the_difference_of_counters_or_nothing() -> None:
    """A device without one leaves its lease without a figure; what was sent is counted beside it."""
    counters: dict[str, int | None] = {"gpu0": 1_000_000, "gpu1": None}
    uses = Uses(counters.get, lambda: 5.0)
    uses.begin("l1", ["gpu0"])
    uses.begin("l2", ["gpu0", "gpu1"])
    uses.sent("l1", 10)
    uses.sent("l9", 10)
    counters["gpu0"] = 1_000_000 + 2 * 3_600_000 + 1_900_000
    assert uses.energy_wh("l1") == 3
    uses.end("l1")
    counters["gpu0"] = 10**12
    assert (uses.energy_wh("l1"), uses.sent_bytes("l1"), uses.began_s("l1")) == (3, 10, 5.0)
    assert uses.energy_wh("l2") is None
    assert (uses.energy_wh("l9"), uses.sent_bytes("l9"), uses.began_s("l9")) == (None, 0, None)
