"""Tensors that share an image's memory, and models bound to them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from pyrdma.attach import Attachment
from pyrdma.errors import BindingError, LocalError
from pyrdma.image import Manifest, lay_out
from pyrdma.memory.memfd import create
from pyrdma.tensors import DTYPES, image_tensors, load_into, plan_binding

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def attached(tensors: Mapping[str, torch.Tensor]) -> Attachment:
    """Return a real attachment of an image that holds these tensors."""
    layout = lay_out((name, NAMES[value.dtype], tuple(value.shape)) for name, value in tensors.items())
    manifest = Manifest(layout, tuple(bytes(32) for _ in range(layout.piece_count)))
    nbytes = -(-layout.total_bytes // 4096) * 4096
    fd = create("test", nbytes)
    attachment = Attachment(manifest, [fd], nbytes, -1)
    for span, value in zip(layout.tensors, tensors.values(), strict=True):
        data = bytes(value.contiguous().reshape(-1).view(torch.uint8).tolist())
        attachment.buffer[span.offset : span.offset + span.nbytes] = data
    return attachment


class Norm(torch.nn.Module):
    """A model with parameters, a persistent buffer and a computed one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 2)
        self.last = torch.nn.Linear(3, 2, bias=False)
        self.register_buffer("mean", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("scratch", torch.zeros(4), persistent=False)


def values() -> dict[str, torch.Tensor]:
    """Return what an image of ``Norm`` holds."""
    return {
        "first.weight": torch.randn(2, 3),
        "first.bias": torch.randn(2),
        "last.weight": torch.randn(2, 3),
        "mean": torch.randn(2, dtype=torch.float64),
    }


def on_meta() -> Norm:
    """Return the model without values."""
    with torch.device("meta"):
        return Norm()


def fill(model: torch.nn.Module) -> None:
    """Compute what no image holds."""
    model.register_buffer("scratch", torch.ones(4), persistent=False)


def test_tensors_are_views_of_the_attachment() -> None:
    """A byte written through a tensor is seen in the buffer: nothing was copied."""
    attachment = attached({"a": torch.zeros(4), "b": torch.zeros(3)})
    tensor = image_tensors(attachment)["b"]
    tensor.fill_(1.0)
    assert bytes(attachment.buffer[256:260]) == b"\x00\x00\x80\x3f"
    assert tensor.data_ptr() % 256 == 0


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_element_type_arrives_as_it_was(dtype: torch.dtype) -> None:
    """Each type that torch has is bound with the right shape and the same bytes."""
    value = torch.arange(48, dtype=torch.uint8).view(torch.bool if dtype == torch.bool else dtype)
    if dtype == torch.bool:
        value = torch.tensor([True, False, True])
    got = image_tensors(attached({"pad": torch.zeros(1), "x": value}))["x"]
    assert got.dtype == dtype
    assert torch.equal(got.view(torch.uint8), value.view(torch.uint8))


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
def test_tensors_without_elements_or_dimensions(shape: tuple[int, ...]) -> None:
    """Empty tensors and scalars keep their shapes."""
    got = image_tensors(attached({"x": torch.ones(shape, dtype=torch.bfloat16), "y": torch.ones(1)}))["x"]
    assert got.shape == shape
    assert torch.equal(got, torch.ones(shape, dtype=torch.bfloat16))


def test_tensors_keep_the_attachment_alive() -> None:
    """The mapping outlives the last reference to the attachment while a tensor uses it, and not longer."""
    attachment = attached({"x": torch.ones(5)})
    gone = weakref.ref(attachment)
    tensor = image_tensors(attachment)["x"]
    del attachment
    gc.collect()
    assert gone() is not None
    assert torch.equal(tensor, torch.ones(5))
    del tensor
    gc.collect()
    assert gone() is None


def test_an_element_type_without_a_torch_type_is_refused() -> None:
    """Sub-byte types are named instead of misread."""
    layout = lay_out([("q", "F4", (8,))])
    manifest = Manifest(layout, (bytes(32),))
    with pytest.raises(BindingError, match="'q' has the element type F4"):
        image_tensors(Attachment(manifest, [create("test", 4096)], 4096, -1))


def test_every_parameter_and_persistent_buffer_is_bound() -> None:
    """The bound model holds the image's values, in the image's memory, and computes."""
    wanted = values()
    attachment = attached(wanted)
    model = on_meta()
    load_into(model, attachment, finish=fill)
    start = image_tensors(attachment)["first.weight"].data_ptr()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted[name])
        assert 0 <= tensor.data_ptr() - start < attachment.buffer.nbytes
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = torch.nn.functional.linear(torch.ones(3), wanted["first.weight"], wanted["first.bias"])
    assert torch.equal(model.first(torch.ones(3)), expected)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"first.bias": None}, "the image lacks first.bias"),
        ({"mean": None}, "the image lacks mean"),
        ({"more": torch.ones(1)}, "the model has no place for more"),
        ({"first.bias": torch.ones(3)}, r"differ for first.bias \(F32 \[3\], wanted float32 \[2\]\)"),
        ({"first.bias": torch.ones(2, 1)}, "differ for first.bias"),
        ({"first.bias": torch.ones(2).half()}, r"F16 \[2\], wanted float32"),
        ({"mean": torch.ones(2)}, "wanted float64"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], sentence: str) -> None:
    """A missing, extra or different tensor is named, and the model is left as it was."""
    tensors = {name: value for name, value in {**values(), **change}.items() if value is not None}
    model = on_meta()
    with pytest.raises(BindingError, match=sentence) as caught:
        load_into(model, attached(tensors), finish=fill)
    assert caught.value.fix
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_refusal_names_only_a_few() -> None:
    """A hundred extra names give a sentence, not a page."""
    tensors = {**values(), **{f"more.{index}": torch.ones(1) for index in range(100)}}
    with pytest.raises(BindingError, match="and 95 more") as caught:
        plan_binding(on_meta(), attached(tensors).manifest.layout.tensors)
    assert len(caught.value.message) < 300


def test_extra_names_may_be_ignored_by_the_caller_or_the_model() -> None:
    """Only names that someone vouches for stay unbound, and they are reported."""
    model = on_meta()
    model._keys_to_ignore_on_load_unexpected = {r"\.position_ids$"}
    tensors = {**values(), "old": torch.ones(1), "first.position_ids": torch.ones(1)}
    plan = load_into(model, attached(tensors), ignore=("old",), finish=fill)
    assert plan.ignored == ("old", "first.position_ids")


def tied() -> Norm:
    """Return a model whose two weights are one."""
    model = on_meta()
    model.all_tied_weights_keys = {"last.weight": "first.weight"}
    return model


@pytest.mark.parametrize("left_out", ["first.weight", "last.weight", None])
def test_tied_weights_share_one_tensor(left_out: str | None) -> None:
    """One name of the two suffices; two names with the same bytes are as good."""
    tensors = values()
    tensors["last.weight"] = tensors["first.weight"].clone()
    weight = tensors["first.weight"]
    tensors.pop(left_out or "", None)
    model = tied()
    load_into(model, attached(tensors), finish=fill)
    assert model.first.weight is model.last.weight
    assert torch.equal(model.first.weight, weight)


def test_tied_weights_with_different_bytes_are_refused() -> None:
    """Two values for one weight: neither is chosen."""
    with pytest.raises(BindingError, match=r"ties first\.weight and last\.weight"):
        load_into(tied(), attached(values()), finish=fill)


def test_a_parameter_shared_by_two_modules_stays_shared() -> None:
    """Sharing that the class itself builds needs no mapping."""
    model = on_meta()
    model.last.weight = model.first.weight
    tensors = values()
    del tensors["last.weight"]
    load_into(model, attached(tensors), finish=fill)
    assert model.first.weight is model.last.weight
    assert not model.last.weight.is_meta


def test_what_nobody_computed_is_refused() -> None:
    """A buffer that is still on meta after the binding has no value: no model is handed out."""
    with pytest.raises(BindingError, match="scratch of the model has no value"):
        load_into(on_meta(), attached(values()))


def test_a_device_without_a_way_is_refused() -> None:
    """Only the CPU and CUDA devices are known."""
    with pytest.raises(LocalError, match="xpu"):
        load_into(on_meta(), attached(values()), device="xpu", finish=fill)
