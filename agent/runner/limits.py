"""Every number that a borrower's request can push in a runner, with its reason."""

from __future__ import annotations

from typing import Final

from pyrdma.limits import KIB, MIB

MAX_BODY_BYTES: Final = 4 * MIB
"""One request; a context of a million tokens fits. Without it one request fills our memory."""
MAX_OPEN_REQUESTS: Final = 128
"""Requests being read or answered; without it a borrower's queue grows until memory ends."""
MAX_MESSAGES: Final = 4096
"""Turns of one conversation; each costs a step of the chat template."""
MAX_TOOLS: Final = 128
"""Tools of one request, as OpenAI has it."""
MAX_STOPS: Final = 4
"""Stop texts, as OpenAI has it; each is searched for after every token."""
MAX_STOP_CHARS: Final = 256
"""Length of one; transformers builds tables over the vocabulary for each."""
MAX_BIASES: Final = 1024
"""Entries of ``logit_bias``; each is a step for every token."""
MAX_INPUTS: Final = 2048
"""Texts of one embedding request, as OpenAI has it."""
EMBED_BATCH: Final = 32
"""Texts in one forward pass; bounds the memory of its activations."""
DEFAULT_NEW_TOKENS: Final = 512
"""Tokens of an answer whose request names no number."""
MAX_NEW_TOKENS: Final = 32 * KIB
"""Tokens of one answer at most; the model's context bounds it further. One request holds the model that
long."""
FALLBACK_CONTEXT_TOKENS: Final = 2048
"""Context of a model whose files name none."""
GRACE_S: Final = 2.0
"""What answers in progress get when the lease ends."""
