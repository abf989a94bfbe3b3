"""The model that answers: bound to an attached image, with its tokenizer and its own way of pooling.

Weights come from the attachment only. Side files (config, tokenizer, templates) are written to a private
folder in memory first, because their readers want files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from starlette.responses import Response

from agent.runner import adapter
from agent.runner.limits import EMBED_BATCH, FALLBACK_CONTEXT_TOKENS
from agent.runner.pooling import Pooling
from pyrdma.attach import Attachment
from pyrdma.image import write_side_files
from pyrdma.staging import Staging
from pyrdma.tensors import load_into


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
        """Return one vector for each text, and how many tokens they had once cut to the model's length."""
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
