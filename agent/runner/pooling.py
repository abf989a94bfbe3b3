"""From token states to one vector, as a model's own files say it.

The files are those of sentence-transformers' folders: ``modules.json``, the pooling module's ``config.json``,
``sentence_bert_config.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from pyrdma.errors import BindingError

_MODES: Final = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken")


@dataclass(frozen=True, slots=True)
class Pooling:
    """How token states become one vector, as the model's own files say it.

    Attributes:
        modes: which of ``cls_token``, ``mean_tokens``, ``max_tokens``, ``mean_sqrt_len_tokens``,
        ``lasttoken``;
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
        if not modes or any(
            key.startswith("pooling_mode_") and said[key] and key not in known for key in said
        ):
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


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise BindingError(
            f"{path.name} is no JSON.", fix="publish the folder as its makers made it"
        ) from error


def _unknown(where: str, what: str) -> BindingError:
    return BindingError(
        f"{where} asks for a way of embedding that is not known here ({what}).",
        fix="publish a model that pools by cls, mean, max or last token and at most normalises",
    )
