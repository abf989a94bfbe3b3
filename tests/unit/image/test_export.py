"""From a flat space back to files that others read, all of them or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrdma.errors import InputError, LocalError
from pyrdma.image import Layout, export_folder, lay_out, scan_folder, write_side_files


def _space(folder: Path) -> tuple[Layout, memoryview]:
    scan = scan_folder(folder)
    space = bytearray(scan.layout.total_bytes)
    for segment in scan.segments:
        with segment.path.open("rb") as file:
            file.seek(segment.file_offset)
            space[segment.offset : segment.offset + segment.nbytes] = file.read(segment.nbytes)
    return scan.layout, memoryview(space)


def test_an_exported_model_is_the_same_image(model_folder: Path, tmp_path: Path) -> None:
    """Scanning the export gives the same layout and bytes, and so the same image id."""
    layout, space = _space(model_folder)
    export_folder(layout, space, target=tmp_path / "out")
    again, same = _space(tmp_path / "out")
    assert again == layout
    assert same == space
    assert {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        "model.safetensors",
        "1_Pooling/config.json",
        "config.json",
        "vocab.txt",
    }


def test_the_real_model_survives(minilm_folder: Path, tmp_path: Path) -> None:
    """Safetensors reads from the export what it reads from the original, and side files are equal."""
    layout, space = _space(minilm_folder)
    export_folder(layout, space, target=tmp_path / "out")
    with (
        safetensors.safe_open(minilm_folder / "model.safetensors", "np") as original,
        safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as exported,
    ):
        assert exported.metadata() == {"format": "pt"}
        assert set(exported.keys()) == set(original.keys())
        for name in original.keys():  # noqa: SIM118 (not a dict)
            theirs, ours = original.get_tensor(name), exported.get_tensor(name)
            assert (theirs.dtype, theirs.shape, theirs.tobytes()) == (ours.dtype, ours.shape, ours.tobytes())
    for span in layout.files:
        assert (tmp_path / "out" / span.name).read_bytes() == (minilm_folder / span.name).read_bytes()


@settings(deadline=None)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=9).filter(
            lambda name: name.isprintable() and name != "__metadata__"
        ),
        st.tuples(st.sampled_from(["F32", "BF16", "U8", "F8_E4M3", "BOOL"]), st.lists(st.integers(0, 9))),
        min_size=1,
    ),
    seed=st.integers(0, 255),
)
def test_any_tensors_come_back_through_the_reference(
    tensors: dict[str, tuple[str, list[int]]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a layout holds, safetensors reads the exported file with the same names, shapes and bytes."""
    tensors = {name: (dtype, shape[:3]) for name, (dtype, shape) in tensors.items()}
    layout = lay_out(((n, d, tuple(s)) for n, (d, s) in tensors.items()), [("config.json", 2)])
    space = bytes((seed + place) % 251 for place in range(layout.total_bytes))
    target = tmp_path_factory.mktemp("export") / "out"
    export_folder(layout, memoryview(space), target=target)
    found = dict(
        safetensors.deserialize(  # type: ignore[no-untyped-call]
            (target / "model.safetensors").read_bytes()
        )
    )
    assert found.keys() == tensors.keys()
    for span in layout.tensors:
        info = found[span.name]
        assert (info["dtype"], info["shape"]) == (span.dtype, list(span.shape))
        assert bytes(info["data"]) == space[span.offset : span.offset + span.nbytes]


def test_the_first_tensor_starts_at_a_multiple_of_eight(model_folder: Path, tmp_path: Path) -> None:
    """The header is padded with spaces, as readers that map the file expect."""
    layout, space = _space(model_folder)
    export_folder(layout, space, target=tmp_path / "out")
    content = (tmp_path / "out" / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    assert json.loads(content[8 : 8 + length])["__metadata__"] == {"format": "pt"}


def test_a_folder_that_is_there_is_not_touched(model_folder: Path, tmp_path: Path) -> None:
    """An existing folder with content, a file and a broken link are refused; an empty folder is used."""
    layout, space = _space(model_folder)
    before = sorted(model_folder.rglob("*"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    for name in ("model", "file", "link"):
        with pytest.raises(InputError, match="already there"):
            export_folder(layout, space, target=tmp_path / name)
    assert sorted(model_folder.rglob("*")) == before
    export_folder(layout, space, target=tmp_path / "empty")
    assert scan_folder(tmp_path / "empty").layout == layout


def test_a_failed_export_leaves_nothing(model_folder: Path, tmp_path: Path) -> None:
    """An export that cannot be written is a LocalError, and neither a folder nor a part of one remains."""
    layout, space = _space(model_folder)
    with pytest.raises(LocalError, match="cannot be written"):
        export_folder(layout, space, target=tmp_path / "absent" / "out")
    released = memoryview(bytes(layout.total_bytes))
    with pytest.raises(InputError, match="flat space"):
        export_folder(layout, released[:-1], target=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_interrupted_export_leaves_nothing(model_folder: Path, tmp_path: Path) -> None:
    """Whatever stops the writing, the part that was written is removed."""
    layout, space = _space(model_folder)

    class Interrupting(Path(tmp_path).__class__):  # type: ignore[misc]
        """A path that is interrupted when the finished folder is to get its name."""

        def rename(self, target: object) -> Path:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_folder(layout, space, target=Interrupting(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_side_files_are_written_alone_and_never_over_others(model_folder: Path, tmp_path: Path) -> None:
    """A runner gets config and tokenizer without the weights; an existing file is not replaced."""
    layout, space = _space(model_folder)
    folder = tmp_path / "side"
    folder.mkdir()
    write_side_files(layout, space, folder=folder)
    assert not (folder / "model.safetensors").exists()
    assert (folder / "1_Pooling" / "config.json").read_text() == "{}"
    with pytest.raises(FileExistsError):
        write_side_files(layout, space, folder=folder)
