"""The model that answers: bound to an attached image, with its tokenizer and its own way of pooling.

Weights come from the attachment only. Side files (config, tokenizer, templates) are written to a private folder in
memory first, because their readers want files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from starlette.responses import Response

from agent.runner import adapter
from agent.runner.limits import EMBED_BATCH, FALLBACK_CONTEXT_TOKENS
from pyrdma.attach import Attachment
from pyrdma.errors import BindingError
from pyrdma.image import write_side_files
from pyrdma.staging import Staging
from pyrdma.tensors import load_into

_MODES: Final = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken")


class Engine(Protocol):
    """What the HTTP app asks of a model."""

    name: str
    context_tokens: int

    @property
    def generates(self) -> bool:
        """Whether the model answers chats and completions."""
        ...

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        ...

    @property
    def embeds(self) -> bool:
        """Whether the model's files say how its embeddings are pooled."""
        ...

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        """Return how many tokens the prompt of a checked body has."""
        ...

    async def chat(self, body: dict[str, Any], request_id: str) -> Response:
        """Answer a checked chat request."""
        ...

    async def complete(self, body: dict[str, Any], request_id: str) -> Response:
        """Answer a checked completion request."""
        ...

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Return one vector for each text, and how many tokens they had."""
        ...


@dataclass(frozen=True, slots=True)
class Pooling:
    """How token states become one vector, as the model's own files say it.

    Attributes:
        modes: which of ``cls_token``, ``mean_tokens``, ``max_tokens``, ``mean_sqrt_len_tokens``, ``lasttoken``;
            several are concatenated in this order.
        normalize: whether the vector is scaled to length 1.
        max_tokens: where texts are cut; 0 for the model's context.
    """

    modes: tuple[str, ...]
    normalize: bool
    max_tokens: int

    @classmethod
    def of_folder(cls, folder: Path) -> Pooling | None:
        """Return what ``modules.json`` and its companions say; None where there is none.

        Raises:
            BindingError: they ask for a module or mode that is not known here.
        """
        modules = _json(folder / "modules.json")
        if modules is None:
            return None
        kinds = {}
        for module in modules if isinstance(modules, list) else ():
            if isinstance(module, dict):
                kinds[str(module.get("type")).rpartition(".")[2]] = str(module.get("path", ""))
        if not {"Transformer", "Pooling"} <= kinds.keys() <= {"Transformer", "Pooling", "Normalize"}:
            raise _unknown("modules.json", ", ".join(kinds))
        said = _json(folder / Path(kinds["Pooling"]).name / "config.json")
        said = said if isinstance(said, dict) else {}
        modes = tuple(mode for mode in _MODES if said.get(f"pooling_mode_{mode}") is True)
        known = {f"pooling_mode_{mode}" for mode in _MODES}
        if not modes or any(key.startswith("pooling_mode_") and said[key] and key not in known for key in said):
            raise _unknown(f"{kinds['Pooling']}/config.json", "its pooling mode")
        limit = (_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
        return cls(modes, "Normalize" in kinds, limit if isinstance(limit, int) and limit > 0 else 0)

    def apply(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the vectors of a batch.

        Args:
            states: token states, batch x tokens x width, of any float type.
            mask: 1 where a token is, batch x tokens; padding may be on either side.

        Returns:
            32-bit floats, batch x (width * number of modes).
        """
        states = states.float()
        weight = mask.unsqueeze(-1).to(states.dtype)
        total = (states * weight).sum(1)
        # A text without any token must not divide by zero; the bound is the one the models were trained with.
        count = weight.sum(1).clamp(min=1e-9)
        rows = torch.arange(len(states), device=states.device)
        parts: dict[str, Callable[[], torch.Tensor]] = {
            "cls_token": lambda: states[rows, mask.argmax(1)],
            "mean_tokens": lambda: total / count,
            "max_tokens": lambda: states.masked_fill(weight == 0, -math.inf).amax(1),
            "mean_sqrt_len_tokens": lambda: total / count.sqrt(),
            "lasttoken": lambda: states[rows, mask.shape[1] - 1 - mask.flip(1).argmax(1)],
        }
        pooled = torch.cat([parts[mode]() for mode in self.modes], dim=1)
        return torch.nn.functional.normalize(pooled, dim=1) if self.normalize else pooled


class TransformersEngine:
    """An engine around one transformers model that lies in an attached image."""

    def __init__(self, name: str, model: Any, tokenizer: Any, pooling: Pooling | None) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        self._pooling = pooling
        self._handlers = adapter.Handlers(name, model, tokenizer) if model.can_generate() else None
        self.context_tokens = adapter.context_tokens(model) or FALLBACK_CONTEXT_TOKENS

    @classmethod
    def bind(
        cls,
        name: str,
        attachment: Attachment,
        *,
        folder: Path,
        device: torch.device,
        staging: Staging | None,
        on_phase: Callable[[str], None],
    ) -> TransformersEngine:
        """Build the model that an image holds and bind it.

        Args:
            name: what the borrower calls the model.
            attachment: the image.
            folder: an empty folder for its side files.
            device: where the model shall run.
            staging: pinned memory for a CUDA device.
            on_phase: told ``bind`` when all weights are bound and ``compute`` when the model is whole.

        Raises:
            BindingError: the image does not fit its own config, or needs what is not served here.
        """
        layout = attachment.manifest.layout
        write_side_files(layout, attachment.buffer, folder=folder)
        model = adapter.build_on_meta(folder, layout.tensors)
        names = [span.name for span in layout.tensors]
        adapter.refuse_conversion(model, names)

        def finish(bound: torch.nn.Module) -> None:
            on_phase("bind")
            adapter.compute_rest(bound, device)

        load_into(
            model,
            attachment,
            device=device,
            ignore=adapter.ignored_names(model, names),
            finish=finish,
            staging=staging,
        )
        adapter.load_generation_config(model, folder)
        engine = cls(name, model, adapter.load_tokenizer(folder), Pooling.of_folder(folder))
        on_phase("compute")
        return engine

    @property
    def generates(self) -> bool:
        """Whether the model answers chats and completions."""
        return self._handlers is not None

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        return self.generates and bool(self._tokenizer.chat_template)

    @property
    def embeds(self) -> bool:
        """Whether the model's files say how its embeddings are pooled."""
        return self._pooling is not None

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        """Return how many tokens the prompt of a checked body has."""
        if "messages" in body:
            return adapter.chat_tokens(self._tokenizer, body["messages"], body.get("tools"))
        return len(self._tokenizer(body["prompt"])["input_ids"])

    async def chat(self, body: dict[str, Any], request_id: str) -> Response:
        """Answer a checked chat request."""
        assert self._handlers is not None
        return await self._handlers.chat(body, request_id)

    async def complete(self, body: dict[str, Any], request_id: str) -> Response:
        """Answer a checked completion request."""
        assert self._handlers is not None
        return await self._handlers.complete(body, request_id)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Return one vector for each text, and how many tokens they had after cutting to the model's length."""
        assert self._pooling is not None
        limit = min(self._pooling.max_tokens or self.context_tokens, self.context_tokens)
        vectors: list[list[float]] = []
        tokens = 0
        for start in range(0, len(texts), EMBED_BATCH):
            batch = self._tokenizer(
                list(texts[start : start + EMBED_BATCH]),
                padding=True,
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            ).to(self._model.device)
            states = self._model.base_model(**batch).last_hidden_state
            vectors.extend(self._pooling.apply(states, batch["attention_mask"]).tolist())
            tokens += int(batch["attention_mask"].sum())
        return vectors, tokens


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise BindingError(f"{path.name} is no JSON.", fix="publish the folder as its makers made it") from error


def _unknown(where: str, what: str) -> BindingError:
    return BindingError(
        f"{where} asks for a way of embedding that is not known here ({what}).",
        fix="publish a model that pools by cls, mean, max or last token and at most normalises",
    )
