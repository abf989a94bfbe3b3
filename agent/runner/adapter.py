"""Everything that knows the insides of transformers (5.20), in one place.

What it does: builds the class that ``config.json`` names on ``meta``, says which of an image's names that
class ignores, refuses weights that transformers would rename or convert, computes what no image holds (rotary
frequencies, position ids), and hands a model that is already there to transformers' own chat and completion
handlers. What it never does: load weights, reach a hub, or run code that comes with a model.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from starlette.responses import Response
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.utils import GenerationState, Modality
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.monkey_patching import patch_output_recorders

from pyrdma.errors import BindingError
from pyrdma.image.layout import TensorSpan
from pyrdma.tensors import DTYPES

_NO_CODE: Final = (
    "only architectures that transformers itself contains can be served; a model's own code never runs"
)
_SAVE_AGAIN: Final = (
    "load the model with transformers, save it again with save_pretrained(), and publish that folder"
)
_REMAP: Final = (r"rotary_emb\.inv_freq$", r"(?:^|\.)position_ids$")
"""Names that old checkpoints hold and that are computed today, where the model has such a buffer."""
_UNTOUCHED: Final = -7


def quiet() -> None:
    """Keep transformers from writing a line per request, and from drawing progress bars."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").propagate = False


def build_on_meta(folder: Path, spans: Sequence[TensorSpan]) -> PreTrainedModel:
    """Return the model that a folder's ``config.json`` names, without weights.

    Args:
        folder: holds ``config.json``.
        spans: the image's tensors; they say the element type where the config does not.

    Raises:
        BindingError: the config names no class of transformers, or asks for a conversion.
    """
    config = _config(folder)
    architectures = getattr(config, "architectures", None) or ()
    name = architectures[0] if architectures else ""
    kind = getattr(transformers, name, None) if isinstance(name, str) and name else None
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        raise BindingError(
            f"config.json names the architecture {name!r}, which transformers does not have.", fix=_NO_CODE
        )
    if getattr(config, "quantization_config", None) is not None:
        raise BindingError(
            "config.json has a quantization_config: such weights need conversion while they are loaded.",
            fix="publish the model in the element type it was trained in",
        )
    architecture: Any = kind
    dtype = _dtype(config, spans)
    _settle(config, dtype)
    try:
        with transformers.utils.generic.ContextManagers(
            architecture.get_init_context(dtype, False, False, None)
        ):
            model: PreTrainedModel = architecture(config)
            patch_output_recorders(model)
    except Exception as error:
        raise BindingError(
            f"{name} cannot be built from its config.json ({_first_line(error)}).", fix=_SAVE_AGAIN
        ) from error
    _keep_in_fp32(model, dtype)
    return model.eval()


def ignored_names(model: PreTrainedModel, names: Iterable[str]) -> frozenset[str]:
    """Return the names that stood for buffers which this version computes."""
    computed = [name for name, _ in model.named_non_persistent_buffers()]
    patterns = [re.compile(text) for text in _REMAP if any(re.search(text, name) for name in computed)]
    return frozenset(name for name in names if any(pattern.search(name) for pattern in patterns))


def refuse_conversion(model: PreTrainedModel, names: Iterable[str]) -> None:
    """Refuse an image whose tensors transformers would rename, merge, split or permute while it loads them.

    Raises:
        BindingError: naming the first such tensor.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    expected = model.state_dict()
    for name in names:
        renamed, converter = rename_source_key(name, renamings, converters, model.base_model_prefix, expected)
        if renamed in expected and (renamed != name or converter is not None):
            raise BindingError(
                f"{type(model).__name__} needs weight conversion: {name} becomes {renamed} on loading.",
                fix=_SAVE_AGAIN,
            )


def compute_rest(model: torch.nn.Module, device: torch.device) -> None:
    """Compute a bound model's non-persistent buffers the way ``from_pretrained`` does, and only those.

    Raises:
        BindingError: a buffer was left as it was.
    """
    assert isinstance(model, PreTrainedModel)
    for tensor in (*model.parameters(), *model.buffers()):
        # transformers' own mark: do not touch.
        tensor._is_hf_initialized = True  # noqa: SLF001
    computed = dict(model.named_non_persistent_buffers(remove_duplicate=False))
    for name, old in computed.items():
        parent, _, attribute = name.rpartition(".")
        fresh = torch.full_like(old, _UNTOUCHED if old.dtype.is_signed else 0, device=device)
        setattr(model.get_submodule(parent), attribute, fresh)
    model.initialize_weights()
    left = [
        name
        for name, buffer in model.named_non_persistent_buffers(remove_duplicate=False)
        if buffer.dtype.is_signed and buffer.numel() and bool((buffer == _UNTOUCHED).all())
    ]
    if left:
        raise BindingError(
            f"{type(model).__name__} does not compute its buffer {left[0]}.",
            fix="this architecture cannot be served",
        )


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a folder's own files.

    Raises:
        BindingError: there is none that transformers can read without code.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise BindingError(
            f"the model's tokenizer cannot be read ({_first_line(error)}).",
            fix="publish a folder that holds tokenizer.json",
        ) from error


def load_generation_config(model: PreTrainedModel, folder: Path) -> None:
    """Give a model that generates the generation config of its folder, where it has one."""
    if model.can_generate() and (folder / "generation_config.json").exists():
        try:
            model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise BindingError(
                f"generation_config.json cannot be read ({_first_line(error)}).", fix=_SAVE_AGAIN
            ) from error


def context_tokens(model: PreTrainedModel) -> int:
    """Return how many tokens a model's config says it can look at; 0 where it says nothing."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", 0)
    return most if isinstance(most, int) and most > 0 else 0


def chat_tokens(tokenizer: Any, messages: list[dict[str, Any]], tools: Any) -> int:
    """Return how many tokens the handlers will make of these messages."""
    inputs = ChatCompletionHandler.get_processor_inputs_from_messages(messages, Modality.LLM)
    ids = tokenizer.apply_chat_template(inputs, tools=tools, add_generation_prompt=True, return_dict=True)
    return len(ids["input_ids"])


class PinnedModel:
    """What transformers' handlers take for their model manager: one model, whatever they ask for."""

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: Any) -> None:
        self.force_model = "pinned"  # not the name: a name with a colon would be taken apart
        self._name = name
        self._model = model
        self._tokenizer = tokenizer

    def process_model_name(self, *_: object) -> str:
        """Return the lease's model name for any name."""
        return self._name

    def load_model_and_processor(self, *_: object, **__: object) -> tuple[PreTrainedModel, Any]:
        """Return the model that is there; nothing is loaded."""
        return self._model, self._tokenizer

    get_model_modality = staticmethod(ModelManager.get_model_modality)


class Handlers:
    """Transformers' chat and completion handlers around one model.

    The bodies that they get are checked and cut down to known fields by the caller
    (``agent.runner.requests``).
    """

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: Any) -> None:
        pinned = PinnedModel(name, model, tokenizer)
        state = GenerationState()
        state.get_manager(name)  # starts the thread that generates
        self._chat = _SamplingChat(pinned, state)
        self._completion = _SamplingCompletion(pinned, state)

    async def chat(self, body: dict[str, Any], request_id: str) -> Response:
        """Answer a chat request, as JSON or as a stream of events."""
        response: Response = await self._chat.handle_request({**body, "model": "pinned"}, request_id)
        return response

    async def complete(self, body: dict[str, Any], request_id: str) -> Response:
        """Answer a completion request, as JSON or as a stream of events."""
        response: Response = await self._completion.handle_request({**body, "model": "pinned"}, request_id)
        return response


class _Sampling:
    """A temperature above zero means sampling to every OpenAI client; here the model's files would decide."""

    def _build_generation_config(
        self, body: dict[str, Any], base: GenerationConfig, use_cb: bool = False
    ) -> GenerationConfig:
        config: GenerationConfig = super()._build_generation_config(body, copy.deepcopy(base), use_cb=use_cb)  # type: ignore[misc]
        if body.get("temperature"):
            config.do_sample = True
        return config


class _SamplingChat(_Sampling, ChatCompletionHandler):  # type: ignore[misc]
    pass


class _SamplingCompletion(_Sampling, CompletionHandler):  # type: ignore[misc]
    pass


def _config(folder: Path) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise BindingError(f"config.json cannot be used ({_first_line(error)}).", fix=_NO_CODE) from error
    assert isinstance(config, PreTrainedConfig)
    return config


def _dtype(config: PreTrainedConfig, spans: Sequence[TensorSpan]) -> torch.dtype:
    dtype = getattr(config, "dtype", None)
    if isinstance(dtype, torch.dtype):
        return dtype
    found = (DTYPES.get(span.dtype) for span in spans)
    return next((each for each in found if each is not None and each.is_floating_point), torch.float32)


def _settle(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    """Fix what a file must not choose: kernels from a hub. The rest as ``from_pretrained`` does it."""
    parts = [config, *(getattr(config, key, None) for key in config.sub_configs)]
    for part in parts:
        if isinstance(part, PreTrainedConfig):
            part.dtype = dtype
            part._attn_implementation = None  # noqa: SLF001 - no public name
    config.name_or_path = ""


def _keep_in_fp32(model: PreTrainedModel, dtype: torch.dtype) -> None:
    plan = model._get_dtype_plan(dtype)  # noqa: SLF001 - no public name
    if not plan:
        return
    # Globs, searched for anywhere in a name: what from_pretrained does with them.
    pattern = re.compile("|".join(key.replace("*", ".*") for key in plan))
    for prefix, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if pattern.search(f"{prefix}.{name}".lstrip(".")):
                setattr(module, name, torch.nn.Parameter(parameter.float(), requires_grad=False))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
