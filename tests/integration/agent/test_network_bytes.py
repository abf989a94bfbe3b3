"""What a caller may send over the wire: too much, nonsense, any bytes; a status comes back, nothing more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from gateway_world import GOOD_REPORT, IMAGE, METHODS, ORDERS, REPORT, answer, refusal, serving, worries
from google.protobuf.descriptor import MethodDescriptor
from grpc import aio

from agent.limits import MAX_GRPC_MESSAGE_BYTES, REFUSALS_LOGGED
from agent.rpc import pyrdma_pb2 as pb

pytestmark = pytest.mark.asyncio


async def test_a_message_over_the_limit_is_refused(tmp_path: Path) -> None:
    """One request does not fill our memory; the connection goes on."""
    async with serving(tmp_path) as world:
        shown = world.credentials("uni-a", "gpu01")
        channel = world.dial_raw(shown.key, shown.certificate)
        error = await refusal(channel, REPORT, bytes(MAX_GRPC_MESSAGE_BYTES + 1))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await answer(channel, REPORT, GOOD_REPORT)
        assert world.face.called == ["report by gpu01.uni-a.example"]


async def test_what_cannot_be_read_is_the_caller_s_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No defect of ours, no line in the log, for messages of any method that are none."""
    async with serving(tmp_path) as world:
        own, gateway, other = (
            world.dial(*one) for one in (("uni-a", "gpu01"), ("uni-a", "gw"), ("uni-b", "gate"))
        )
        for method in METHODS:
            order = method.name in ORDERS
            channel = other if method.containing_service.name == "Site" else gateway if order else own
            error = await refusal(channel, method, b"\xff\xff\xff")
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, method.full_name
        assert world.face.called == []
    assert worries(caplog) == []


async def test_refused_calls_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody who left may call as often as the line bears; we say it a few times."""
    async with serving(tmp_path) as world:
        channel = world.dial("uni-a", "left")
        for _ in range(50):
            await refusal(channel, REPORT)
    lines = [one.getMessage() for one in caplog.records if one.getMessage().startswith("refused ")]
    assert len(lines) == REFUSALS_LOGGED
    assert "left" in lines[0]


EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
}
SEEDS = {
    "pyrdma.v1.ReportRequest": GOOD_REPORT,
    "pyrdma.v1.RunRequest": pb.RunRequest(model="m", site="s", node="n").SerializeToString(),
    "pyrdma.v1.StartRunnerRequest": pb.StartRunnerRequest(
        lease_id="l", model="m", image_id=bytes(IMAGE), ttl_s=1.0
    ).SerializeToString(),
    "pyrdma.v1.AskOfferRequest": pb.AskOfferRequest(
        request_id="r", model="m", image_id=bytes(IMAGE), total_bytes=1, devices=1, borrower_node="n"
    ).SerializeToString(),
    "pyrdma.v1.OpenSourceRequest": pb.OpenSourceRequest(
        image_id=bytes(IMAGE), lane="ucx", address=b"a"
    ).SerializeToString(),
}


def mutants(method: MethodDescriptor, chance: random.Random) -> Iterator[bytes]:
    """Yield 500 requests: random bytes, and honest ones with a part changed, cut or doubled."""
    seed = SEEDS.get(method.input_type.full_name, b"\x0a\x02l1")
    for _ in range(500):
        data = bytearray(seed)
        match chance.randrange(5):
            case 0:
                data = bytearray(chance.randbytes(chance.randrange(200)))
            case 1:
                data[chance.randrange(len(data))] = chance.randrange(256)
            case 2:
                del data[chance.randrange(len(data)) :]
            case 3:
                at = chance.randrange(len(data))
                data[at:at] = chance.randbytes(chance.randrange(40))
            case _:
                data += data + bytes([chance.randrange(256)])
        yield bytes(data)


async def test_any_bytes_get_a_status_and_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """500 mutated messages to each method: only the caller's fault, no defect, no growth."""
    chance = random.Random(8)
    process = psutil.Process()
    seen: dict[str, set[grpc.StatusCode]] = {}
    async with serving(tmp_path) as world:
        world.face.ends.set()
        own, gateway, other = (
            world.dial(*one) for one in (("uni-a", "gpu01"), ("uni-a", "gw"), ("uni-b", "gate"))
        )

        async def status(channel: aio.Channel, method: MethodDescriptor, data: bytes) -> grpc.StatusCode:
            try:
                await answer(channel, method, data)
            except aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        before = 0
        for number, method in enumerate(METHODS):
            order = method.name in ORDERS
            channel = other if method.containing_service.name == "Site" else gateway if order else own
            found = seen.setdefault(method.full_name, set())
            batch: list[bytes] = []
            for data in mutants(method, chance):
                batch.append(data)
                if len(batch) == 50:
                    found |= set(await asyncio.gather(*(status(channel, method, one) for one in batch)))
                    batch.clear()
            if number == 3:
                before = process.memory_info().rss
        growth = process.memory_info().rss - before
        await answer(own, REPORT, GOOD_REPORT)
    assert {name: codes - EXPECTED for name, codes in seen.items() if codes - EXPECTED} == {}
    assert growth < 64 << 20
    assert worries(caplog) == []
