"""Torch tensors that share an image's memory, and models bound to them.

Rules of a binding, checked before anything is touched:

- each parameter and persistent buffer of the model is bound exactly once, to a tensor of its name, with equal
  shape and element type; weights that the model ties share one tensor, whichever of their names the image
  holds, and where it holds several, their bytes must be equal;
- a name in the image that the model lacks is an error, unless the caller or the model's own
  ``_keys_to_ignore_on_load_unexpected`` patterns say that it may be ignored;
- when the work is done nothing of the model is left on ``meta``.

Anything else is a ``BindingError``. Models are taken as they are (built on ``meta``); which class a folder
names and how its non-persistent buffers are computed is the caller's knowledge.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch

from pyrdma.errors import BindingError, LocalError
from pyrdma.image.layout import TensorSpan
from pyrdma.staging import Staging

if TYPE_CHECKING:
    from pyrdma.attach import Attachment

_NAMES_SHOWN: Final = 5
_SAVE_AGAIN: Final = (
    "load the model with transformers, save it again with save_pretrained() in the element type "
    "of its config, and publish that folder"
)

DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {
        "BOOL": torch.bool,
        "U8": torch.uint8,
        "I8": torch.int8,
        "U16": torch.uint16,
        "I16": torch.int16,
        "U32": torch.uint32,
        "I32": torch.int32,
        "U64": torch.uint64,
        "I64": torch.int64,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
        "F8_E8M0": torch.float8_e8m0fnu,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F32": torch.float32,
        "F64": torch.float64,
        "C64": torch.complex64,
    }
)
"""Torch's type for each element type of an image that torch can bind; sub-byte types are not among them."""


@dataclass(frozen=True, slots=True)
class _Slot:
    """One place in a model that holds a parameter or persistent buffer."""

    name: str
    module: torch.nn.Module
    attribute: str
    tensor: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Group:
    """Places that share one tensor, and the image's names for it, at least one."""

    slots: tuple[_Slot, ...]
    spans: tuple[TensorSpan, ...]


@dataclass(frozen=True, slots=True)
class BindingPlan:
    """What goes where; made only if everything fits.

    Attributes:
        ignored: names in the image that nothing is bound to, in its order.
        twins: names in the image that are one weight in the model; their bytes must be equal.
    """

    groups: tuple[_Group, ...]
    ignored: tuple[str, ...]

    @property
    def twins(self) -> tuple[tuple[TensorSpan, ...], ...]:
        """The spans that must be equal, group by group."""
        return tuple(group.spans for group in self.groups if len(group.spans) > 1)


def image_tensors(attachment: Attachment) -> dict[str, torch.Tensor]:
    """Return every tensor of an attached image by name; nothing is copied.

    The tensors share the attachment's memory and keep the attachment alive. They can be written, which
    changes only this process's view: the mapping is private.

    Raises:
        BindingError: an element type has no torch type.
    """
    return _views(attachment.manifest.layout.tensors, _bytes_of(attachment))


def plan_binding(
    model: torch.nn.Module, spans: Sequence[TensorSpan], *, ignore: Collection[str] = ()
) -> BindingPlan:
    """Return how an image's tensors bind to a model, from names, shapes and element types alone.

    Args:
        model: built on any device; its tensors are looked at, not read.
        spans: the image's tensors.
        ignore: names in the image that may stay unbound.

    Raises:
        BindingError: they do not fit exactly.
    """
    by_name = {span.name: span for span in spans}
    groups: list[_Group] = []
    missing: list[str] = []
    mismatched: list[str] = []
    bound: set[str] = set()
    for slots in _slot_groups(model):
        found = tuple(by_name[slot.name] for slot in slots if slot.name in by_name)
        if not found:
            missing.append(slots[0].name)
            continue
        bound.update(span.name for span in found)
        mismatched.extend(_mismatches(slots, found))
        groups.append(_Group(slots, found))
    left = [span.name for span in spans if span.name not in bound]
    pattern = _ignore_pattern(model)
    extra = [name for name in left if name not in ignore and not (pattern and pattern.search(name))]
    _refuse(missing, extra, mismatched)
    return BindingPlan(tuple(groups), tuple(left))


def load_into(
    model: torch.nn.Module,
    attachment: Attachment,
    *,
    device: torch.device | str | None = None,
    ignore: Collection[str] = (),
    finish: Callable[[torch.nn.Module], None] | None = None,
    staging: Staging | None = None,
) -> BindingPlan:
    """Bind each parameter and persistent buffer of a model to an image, exactly once.

    On the CPU nothing is copied: the parameters lie in the attachment's memory. On a CUDA device the image's
    tensors go into one allocation, through pinned memory.

    Args:
        model: built on ``meta``.
        attachment: the image.
        device: where the parameters shall lie; the CPU by default.
        ignore: names in the image that may stay unbound.
        finish: computes what no image holds (non-persistent buffers), on ``device``, after the binding.
        staging: pinned memory to reuse; made for this call by default. Only for CUDA devices.

    Returns:
        What was bound, and the names that were ignored.

    Raises:
        BindingError: model and image do not fit, or something is still on ``meta`` at the end.
        LocalError: there is no way to this kind of device.
    """
    plan = plan_binding(model, attachment.manifest.layout.tensors, ignore=ignore)
    where = torch.device("cpu" if device is None else device)
    _refuse_unequal_twins(plan, attachment)
    tensors = _tensors_on(where, attachment, staging)
    for group in plan.groups:
        _bind(group, tensors[group.spans[0].name])
    if finish is not None:
        finish(model)
    _refuse_meta(model)
    return plan


def _bytes_of(attachment: Attachment) -> torch.Tensor:
    view = attachment.buffer
    # An array of our own between torch and the mapping: torch keeps the array, the array keeps the
    # attachment.
    kind: Any = type("_Held", (ctypes.c_ubyte * view.nbytes,), {})
    array = kind.from_buffer(view)
    array.attachment = attachment
    return torch.frombuffer(array, dtype=torch.uint8)


def _views(spans: Sequence[TensorSpan], flat: torch.Tensor) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for span in spans:
        dtype = DTYPES.get(span.dtype)
        if dtype is None:
            raise BindingError(
                f"tensor {span.name!r} has the element type {span.dtype}, which torch cannot bind.",
                fix=_SAVE_AGAIN,
            )
        cut = flat[span.offset : span.offset + span.nbytes]
        tensors[span.name] = cut.view(dtype).view(span.shape)
    return tensors


def _tensors_on(
    where: torch.device, attachment: Attachment, staging: Staging | None
) -> dict[str, torch.Tensor]:
    if where.type == "cpu":
        return image_tensors(attachment)
    if where.type != "cuda":
        raise LocalError(
            f"weights cannot be brought to a device of kind {where.type!r}.", fix="use cpu or cuda"
        )
    spans = attachment.manifest.layout.tensors
    end = max((span.offset + span.nbytes for span in spans), default=0)
    flat = torch.empty(end, dtype=torch.uint8, device=where)
    own = staging is None
    stage = Staging(where) if staging is None else staging
    try:
        stage.upload(attachment.buffer[:end], flat)
    finally:
        if own:
            stage.close()
    return _views(spans, flat)


def _slots(model: torch.nn.Module) -> Iterator[_Slot]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield _Slot(dot + attribute, module, attribute, parameter)
        computed = module._non_persistent_buffers_set  # noqa: SLF001 - torch has no public name for it
        for attribute, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            if attribute not in computed:
                yield _Slot(dot + attribute, module, attribute, buffer)


def _slot_groups(model: torch.nn.Module) -> list[tuple[_Slot, ...]]:
    """Return the places of a model, those that share a tensor together, in the model's order."""
    slots = list(_slots(model))
    by_name = {slot.name: index for index, slot in enumerate(slots)}
    leader = list(range(len(slots)))

    def find(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    first_of: dict[int, int] = {}
    for index, slot in enumerate(slots):
        leader[find(index)] = find(first_of.setdefault(id(slot.tensor), index))
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    for target, source in tied.items():
        if target in by_name and source in by_name:
            leader[find(by_name[target])] = find(by_name[source])
    groups: dict[int, list[_Slot]] = {}
    for index, slot in enumerate(slots):
        groups.setdefault(find(index), []).append(slot)
    return [tuple(group) for group in groups.values()]


def _mismatches(slots: Sequence[_Slot], spans: Sequence[TensorSpan]) -> Iterator[str]:
    for span in spans:
        for slot in slots:
            wanted = tuple(slot.tensor.shape)
            if span.shape != wanted or DTYPES.get(span.dtype) != slot.tensor.dtype:
                kind = str(slot.tensor.dtype).removeprefix("torch.")
                yield f"{span.name} ({span.dtype} {list(span.shape)}, wanted {kind} {list(wanted)})"
                break


def _ignore_pattern(model: torch.nn.Module) -> re.Pattern[str] | None:
    patterns: Collection[str] = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None


def _refuse(missing: Sequence[str], extra: Sequence[str], mismatched: Sequence[str]) -> None:
    faults = [
        f"{word} {_shown(names)}"
        for word, names in (
            ("the image lacks", missing),
            ("the model has no place for", extra),
            ("shape or type differ for", mismatched),
        )
        if names
    ]
    if faults:
        raise BindingError(f"model and image do not fit: {'; '.join(faults)}.", fix=_SAVE_AGAIN)


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def refuse_unequal(first: str, second: str) -> None:
    """Raise the error for two names of one weight whose bytes differ."""
    raise BindingError(
        f"the model ties {first} and {second}, but the image holds different bytes for them.",
        fix="set tie_word_embeddings to false in config.json if they are meant to differ, and publish again",
    )


def _refuse_unequal_twins(plan: BindingPlan, attachment: Attachment) -> None:
    if not plan.twins:
        return
    flat = _bytes_of(attachment)
    for first, *others in plan.twins:
        left = flat[first.offset : first.offset + first.nbytes]
        for other in others:
            if not torch.equal(left, flat[other.offset : other.offset + other.nbytes]):
                refuse_unequal(first.name, other.name)


def _bind(group: _Group, tensor: torch.Tensor) -> None:
    parameter = torch.nn.Parameter(tensor, requires_grad=False)
    for slot in group.slots:
        bound = parameter if isinstance(slot.tensor, torch.nn.Parameter) else tensor
        setattr(slot.module, slot.attribute, bound)


def _refuse_meta(model: torch.nn.Module) -> None:
    named = [*model.named_parameters(), *model.named_buffers()]
    left = [name for name, tensor in named if tensor.is_meta]
    if left:
        raise BindingError(
            f"after binding, {_shown(left)} of the model has no value.",
            fix="this architecture computes buffers in a way that is not known here; it cannot be served",
        )
