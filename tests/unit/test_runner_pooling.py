"""Pooling as a model's own files say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.runner.pooling import Pooling
from pyrdma.errors import BindingError

STATES = torch.tensor([[[1.0, 5.0], [3.0, -1.0], [9.0, 9.0]], [[2.0, 2.0], [9.0, 9.0], [9.0, 9.0]]])
RIGHT = torch.tensor([[1, 1, 0], [1, 0, 0]])


def folder_with(tmp_path: Path, pooling: dict[str, Any], kinds: tuple[str, ...]) -> Path:
    """Write the files of a sentence-transformers folder."""
    modules = [
        {"path": "1_Pooling" if kind == "Pooling" else "", "type": f"st.models.{kind}"} for kind in kinds
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(pooling))
    return tmp_path


def test_a_folder_says_how(tmp_path: Path) -> None:
    """Mode, normalisation and length come from the three files."""
    pooling = {
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
        "word_embedding_dimension": 2,
    }
    folder = folder_with(tmp_path, pooling, ("Transformer", "Pooling", "Normalize"))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    assert Pooling.of_folder(folder) == Pooling(("mean_tokens",), normalize=True, max_tokens=256)


def test_a_folder_that_says_nothing_cannot_embed(tmp_path: Path) -> None:
    """Without modules.json there is no guess."""
    assert Pooling.of_folder(tmp_path) is None


@pytest.mark.parametrize(
    ("pooling", "kinds"),
    [
        ({"pooling_mode_weightedmean_tokens": True}, ("Transformer", "Pooling")),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_new": True}, ("Transformer", "Pooling")),
        ({}, ("Transformer", "Pooling")),
        ({"pooling_mode_mean_tokens": True}, ("Transformer", "Pooling", "Dense")),
        ({"pooling_mode_mean_tokens": True}, ("Transformer",)),
    ],
)
def test_unknown_ways_are_refused(tmp_path: Path, pooling: dict[str, Any], kinds: tuple[str, ...]) -> None:
    """A mode or module that is not known would give wrong vectors: refused."""
    with pytest.raises(BindingError, match="not known here"):
        Pooling.of_folder(folder_with(tmp_path, pooling, kinds))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("cls_token", [[1.0, 5.0], [2.0, 2.0]]),
        ("mean_tokens", [[2.0, 2.0], [2.0, 2.0]]),
        ("max_tokens", [[3.0, 5.0], [2.0, 2.0]]),
        ("mean_sqrt_len_tokens", [[4 / 2**0.5, 4 / 2**0.5], [2.0, 2.0]]),
        ("lasttoken", [[3.0, -1.0], [2.0, 2.0]]),
    ],
)
@pytest.mark.parametrize("left", [False, True])
def test_padding_never_counts(mode: str, expected: list[list[float]], left: bool) -> None:
    """Each mode sees only tokens, whichever side the padding is on."""
    states, mask = STATES, RIGHT
    if left:
        states = torch.stack([STATES[0].roll(1, 0), STATES[1].roll(2, 0)])
        mask = torch.tensor([[0, 1, 1], [0, 0, 1]])
    got = Pooling((mode,), normalize=False, max_tokens=0).apply(states.half(), mask)
    assert torch.allclose(got, torch.tensor(expected), atol=1e-3)
    assert got.dtype == torch.float32


def test_normalised_vectors_have_length_one() -> None:
    """Normalize is applied behind the pooling; several modes are concatenated."""
    got = Pooling(("cls_token", "mean_tokens"), normalize=True, max_tokens=0).apply(STATES, RIGHT)
    assert got.shape == (2, 4)
    assert torch.allclose(got.norm(dim=1), torch.ones(2))
