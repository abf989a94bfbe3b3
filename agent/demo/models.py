"""Generated models: Llama-shaped checkpoints of any size, with a tokenizer and a chat template, in seconds.

What they say is noise, but everything else is real: the folder is what ``save_pretrained`` would leave,
transformers loads it, and its weights are as hard to compress, and as easily found out when damaged, as
trained ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pyrdma.image import lay_out
from pyrdma.image.header import build_header
from pyrdma.limits import GIB, MIB

_SHARD_BYTES: Final = 512 * MIB
_POOL_VALUES: Final = 4 * MIB
_WEIGHT_STD: Final = 0.02  # what Llama's own configuration starts from
_CONTEXT_TOKENS: Final = 2048
_SPECIAL: Final = ("<unk>", "<s>", "</s>")
_CORPUS: Final = (
    "Many laboratories own graphics processors that stand idle at night while others wait for them.",
    "A borrowed processor is of little use while its memory is filled slowly from a disk far away.",
    "Weights that lie in the memory of one machine can be in that of another within seconds.",
    "Each piece is proven by its digest before anyone may use it; a source that lies is dropped.",
    "The owner keeps the last word: local work comes first, and what was lent is given back in time.",
    "Ask the model a question and it will answer; what this one says means nothing, it has learnt nothing.",
)
_TEMPLATE: Final = (
    "{% for message in messages %}{{ '[' + message['role'] + '] ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Widths of a model; the number of layers follows from the size that is wanted."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int

    def layer(self, index: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name the tensors of one layer with their shapes."""
        head = f"model.layers.{index}"
        kv = self.hidden // self.heads * self.kv_heads
        yield f"{head}.input_layernorm.weight", (self.hidden,)
        yield f"{head}.self_attn.q_proj.weight", (self.hidden, self.hidden)
        yield f"{head}.self_attn.k_proj.weight", (kv, self.hidden)
        yield f"{head}.self_attn.v_proj.weight", (kv, self.hidden)
        yield f"{head}.self_attn.o_proj.weight", (self.hidden, self.hidden)
        yield f"{head}.post_attention_layernorm.weight", (self.hidden,)
        yield f"{head}.mlp.gate_proj.weight", (self.intermediate, self.hidden)
        yield f"{head}.mlp.up_proj.weight", (self.intermediate, self.hidden)
        yield f"{head}.mlp.down_proj.weight", (self.hidden, self.intermediate)


_Tensor = tuple[str, tuple[int, ...]]
_SHAPES: Final = (
    (2 * MIB, _Shape(64, 176, 4, 2)),
    (64 * MIB, _Shape(256, 704, 4, 2)),
    (GIB, _Shape(1024, 2816, 16, 8)),
)
_LARGE: Final = _Shape(2048, 5632, 16, 8)


def generate_llama(folder: Path, size_bytes: int, seed: int = 0) -> None:
    """Write a Llama-shaped model with random bfloat16 weights.

    Args:
        folder: made if it is missing; files of the same names are replaced.
        size_bytes: about how large the weights shall be; at least one layer is written.
        seed: the same seed and size give the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder)
    shape = next((each for limit, each in _SHAPES if size_bytes < limit), _LARGE)
    ends: list[_Tensor] = [
        ("model.embed_tokens.weight", (vocabulary, shape.hidden)),
        ("model.norm.weight", (shape.hidden,)),
        ("lm_head.weight", (vocabulary, shape.hidden)),
    ]
    layers = max(1, round((size_bytes - _nbytes(ends)) / _nbytes(shape.layer(0))))
    tensors = [ends[0], *(each for index in range(layers) for each in shape.layer(index)), *ends[1:]]
    _write_config(folder, shape, layers=layers, vocabulary=vocabulary)
    _write_weights(folder, tensors, seed=seed)


def _nbytes(tensors: Iterator[_Tensor] | list[_Tensor]) -> int:
    return sum(2 * int(np.prod(shape)) for _, shape in tensors)


def _write_tokenizer(folder: Path) -> int:
    tokenizer = Tokenizer(models.BPE(unk_token=_SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Printable ASCII only: whatever a random model says can be shown, token by token.
    readable = [*sorted(filter(str.isascii, pre_tokenizers.ByteLevel.alphabet())), "Ġ", "Ċ"]
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=list(_SPECIAL), initial_alphabet=readable, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": _SPECIAL[0],
            "bos_token": _SPECIAL[1],
            "eos_token": _SPECIAL[2],
            "pad_token": _SPECIAL[2],
            "model_max_length": _CONTEXT_TOKENS,
            "clean_up_tokenization_spaces": False,
        },
    )
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    return int(tokenizer.get_vocab_size())


def _write_config(folder: Path, shape: _Shape, *, layers: int, vocabulary: int) -> None:
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    _write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "bfloat16",
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": _CONTEXT_TOKENS,
            "vocab_size": vocabulary,
            "tie_word_embeddings": False,
            **tokens,
        },
    )
    _write_json(folder / "generation_config.json", {"do_sample": False, **tokens})


def _write_weights(folder: Path, tensors: list[_Tensor], *, seed: int) -> None:
    shards: list[list[_Tensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and _nbytes([*shards[-1], tensor]) > _SHARD_BYTES:
            shards.append([])
        shards[-1].append(tensor)
    values = _Values(seed)
    placed: dict[str, str] = {}
    for index, shard in enumerate(shards):
        count = len(shards)
        name = f"model-{index + 1:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors"
        placed.update((tensor, name) for tensor, _ in shard)
        with (folder / name).open("wb") as file:
            file.write(build_header(lay_out((tensor, "BF16", shape) for tensor, shape in shard).tensors))
            for _, shape in shard:
                values.write(file, shape)
    if len(shards) > 1:
        index_json = {"metadata": {"total_size": _nbytes(tensors)}, "weight_map": placed}
        _write_json(folder / "model.safetensors.index.json", index_json)


class _Values:
    """Bfloat16 numbers: ones for norms, else normal noise.

    Drawing billions of normal numbers takes minutes. So a few million are drawn, and each stretch of weights
    is that pool with signs and lowest bits changed by a pattern of its own: no two stretches are alike.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        drawn = self._random.standard_normal(_POOL_VALUES, dtype=np.float32) * np.float32(_WEIGHT_STD)
        self._pool: npt.NDArray[np.uint16] = (drawn.view(np.uint32) >> 16).astype(np.uint16)
        self._stretch = np.empty_like(self._pool)

    def write(self, file: BinaryIO, shape: tuple[int, ...]) -> None:
        """Write one tensor's values."""
        if len(shape) == 1:
            file.write(np.full(shape, 0x3F80, dtype=np.uint16).data)  # 1.0
            return
        left = int(np.prod(shape))
        while left:
            count = min(left, _POOL_VALUES)
            start = int(self._random.integers(0, _POOL_VALUES))
            sign, low_bits = self._random.integers(0, (2, 32))
            pattern = np.uint16(sign << 15 | low_bits)
            turned = self._stretch[:count]
            head = min(count, _POOL_VALUES - start)
            np.bitwise_xor(self._pool[start : start + head], pattern, out=turned[:head])
            np.bitwise_xor(self._pool[: count - head], pattern, out=turned[head:])
            file.write(turned.data)
            left -= count


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
