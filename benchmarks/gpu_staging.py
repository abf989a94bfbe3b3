"""``gpu_staging``: an image in host memory bound to a model on a CUDA device, against a pinned copy.

The image lies in a weight cache, as on a node. References of the same run and bytes: one pinned buffer
copied again and again (what the bus gives), and ``Tensor.to`` from pageable memory (what happens without
staging). Every parameter is compared with the file's bytes on the device after the first upload.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.report import Figure, spread
from benchmarks.weights import weight_folder
from pyrdma.attach import Attachment, receive_attachment
from pyrdma.cache.client import CacheClient, CacheConfig
from pyrdma.limits import GIB, MIB
from pyrdma.wire import Channel

if TYPE_CHECKING:
    import torch

PINNED_BYTES = GIB


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu_staging")
    parser.add_argument("--size", type=float, default=8e9, help="bytes of the image")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(arguments)
    asyncio.run(_run(int(options.size), options.runs))


async def _run(nbytes: int, runs: int) -> None:
    with weight_folder(nbytes) as folder:
        cache = await CacheClient.start(CacheConfig(nbytes + 256 * MIB, prefault=False))
        try:
            manifest = await cache.publish(folder, lambda _: None)
            ours, theirs = Channel.pair()
            (await cache.attach(manifest.image_id)).send_to(ours)
            attachment = receive_attachment(Channel(theirs))
            await asyncio.to_thread(_measure, attachment, runs)
        finally:
            await cache.close()


def _measure(attachment: Attachment, runs: int) -> None:
    import torch

    from pyrdma.staging import Staging
    from pyrdma.tensors import image_tensors, load_into

    device = torch.device("cuda")
    total = attachment.manifest.layout.tensor_bytes
    torch.zeros(1, device=device)
    started_s = time.perf_counter()
    staging = Staging(device)
    pin_s = time.perf_counter() - started_s
    pinned = torch.empty(PINNED_BYTES, dtype=torch.uint8, pin_memory=True)
    on_device = torch.empty(PINNED_BYTES, dtype=torch.uint8, device=device)
    pageable = image_tensors(attachment)
    staged, copied, plain = [], [], []
    for run in range(runs + 1):
        model = _model(attachment)
        staged.append(
            total / _seconds(partial(load_into, model, attachment, device=device, staging=staging)) / 1e9
        )
        if run == 0:
            for name, tensor in pageable.items():
                part = model.get_parameter(name)
                if not torch.equal(part.view(torch.int16), tensor.view(torch.int16).to(device)):
                    raise AssertionError(f"{name} differs on the device")
        del model
        copied.append(PINNED_BYTES / _seconds(lambda: on_device.copy_(pinned, non_blocking=True)) / 1e9)
        plain.append(total / _seconds(lambda: [tensor.to(device) for tensor in pageable.values()]) / 1e9)
    staged, copied, plain = staged[1:], copied[1:], plain[1:]
    Figure(
        "gpu_staging",
        statistics.median(staged),
        "GB/s",
        statistics.median(copied),
        "one pinned buffer copied to the device",
        statistics.median(one / other for one, other in zip(staged, copied, strict=True)),
        {
            "device": torch.cuda.get_device_name(device),
            "torch": torch.__version__,
            "bytes": total,
            "tensors": len(pageable),
            "pin_staging_s": round(pin_s, 4),
            "staged": spread(staged),
            "pinned_copy": spread(copied),
            "pageable_copy": spread(plain),
        },
    ).emit()


def _model(attachment: Attachment) -> torch.nn.Module:
    import torch

    class Flat(torch.nn.Module):
        """One parameter a tensor."""

    model = Flat()
    for span in attachment.manifest.layout.tensors:
        empty = torch.empty(span.shape, dtype=torch.bfloat16, device="meta")
        model.register_parameter(span.name, torch.nn.Parameter(empty, requires_grad=False))
    return model


def _seconds(work: Callable[[], object]) -> float:
    import torch

    torch.cuda.synchronize()
    started_s = time.perf_counter()
    kept = work()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started_s
    del kept
    return seconds
