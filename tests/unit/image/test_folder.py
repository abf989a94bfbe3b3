"""Which folders are models, which of their files count, and what is said about the others."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrdma.errors import ImageFormatError
from pyrdma.image import FolderScan, scan_folder
from pyrdma.limits import MAX_FOLDER_ENTRIES, MAX_SIDE_FILE_BYTES

WeightFile = Callable[[dict[str, tuple[str, list[int], bytes]]], bytes]


def _flat(scan: FolderScan) -> bytes:
    space = bytearray(scan.layout.total_bytes)
    for segment in scan.segments:
        with segment.path.open("rb") as file:
            file.seek(segment.file_offset)
            space[segment.offset : segment.offset + segment.nbytes] = file.read(segment.nbytes)
    return bytes(space)


def _shard(folder: Path, weight_file: WeightFile, *, index: dict[str, str] | None = None) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model-1.safetensors").write_bytes(weight_file({"z": ("U8", [3], b"zzz")}))
    (folder / "model-2.safetensors").write_bytes(weight_file({"a": ("U8", [2], b"aa")}))
    found = {"z": "model-1.safetensors", "a": "model-2.safetensors"} if index is None else index
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 5.0}, "weight_map": found})
    )


def test_a_model_folder_becomes_a_flat_space(model_folder: Path) -> None:
    """Tensors and side files lie where the layout says, zeros between them, the rest is listed as skipped."""
    scan = scan_folder(model_folder)
    space = _flat(scan)
    assert [(s.name, s.shape, s.offset) for s in scan.layout.tensors] == [
        ("a.weight", (2, 3), 0),
        ("a.nothing", (0, 7), 256),
        ("b.bias", (), 256),
    ]
    assert space[:24] == bytes(range(24))
    assert space[24:256] == bytes(232)
    assert space[256:257] == b"\xff"
    assert [s.name for s in scan.layout.files] == ["1_Pooling/config.json", "config.json", "vocab.txt"]
    config = scan.layout.files[1]
    assert space[config.offset : config.offset + config.nbytes] == (model_folder / "config.json").read_bytes()
    assert scan.skipped == ("README.md",)


def test_the_segments_are_absolute_and_never_empty(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, with another working directory, can copy them."""
    monkeypatch.chdir(model_folder.parent)
    segments = scan_folder(Path(model_folder.name)).segments
    assert all(segment.path.is_absolute() and segment.nbytes > 0 for segment in segments)
    assert len(segments) == 4


def test_the_real_model_is_scanned(minilm_folder: Path) -> None:
    """All-MiniLM-L6-v2 gives its 104 tensors and ten side files; README and .gitattributes are skipped."""
    scan = scan_folder(minilm_folder)
    assert len(scan.layout.tensors) == 104
    assert scan.layout.tensor_bytes == 90_856_960
    assert {"config.json", "tokenizer.json", "vocab.txt", "1_Pooling/config.json"} <= {
        s.name for s in scan.layout.files
    }
    assert scan.skipped == (".gitattributes", "README.md")
    assert scan.layout.piece_count == 6


def test_shards_come_in_the_order_of_their_names(model_folder: Path, weight_file: WeightFile) -> None:
    """An index with its shards is a model; a weight file that it does not name is skipped."""
    _shard(model_folder, weight_file)
    (model_folder / "consolidated.safetensors").write_bytes(b"not even read")
    scan = scan_folder(model_folder)
    assert [s.name for s in scan.layout.tensors] == ["z", "a"]
    assert _flat(scan)[:3] == b"zzz"
    assert _flat(scan)[256:258] == b"aa"
    assert scan.skipped == ("README.md", "consolidated.safetensors")


def test_a_whole_file_wins_over_an_index(model_folder: Path, weight_file: WeightFile) -> None:
    """With both, the whole file is the model and the index is skipped, as transformers does."""
    whole = (model_folder / "model.safetensors").read_bytes()
    _shard(model_folder, weight_file)
    (model_folder / "model.safetensors").write_bytes(whole)
    scan = scan_folder(model_folder)
    assert scan.layout.tensors[0].name == "a.weight"
    assert "model.safetensors.index.json" in scan.skipped


def test_the_only_weight_file_may_have_any_name(model_folder: Path) -> None:
    """A single safetensors file needs no particular name."""
    (model_folder / "model.safetensors").rename(model_folder / "weights v1.safetensors")
    assert len(scan_folder(model_folder).layout.tensors) == 3


def test_links_to_files_count_as_the_files(model_folder: Path, tmp_path: Path) -> None:
    """The hub's cache links every file to a blob; linked folders are not entered."""
    plain = scan_folder(model_folder)
    for number, name in enumerate(("model.safetensors", "config.json")):
        blob = (model_folder / name).rename(tmp_path / f"blob{number}")
        (model_folder / name).symlink_to(Path("..") / blob.name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret.json").write_text("{}")
    (model_folder / "linked").symlink_to(elsewhere)
    scan = scan_folder(model_folder)
    assert scan.layout == plain.layout
    assert _flat(scan) == _flat(plain)
    assert scan.skipped == ("README.md", "linked/")


def test_what_is_no_side_file_is_skipped_and_said(model_folder: Path) -> None:
    """Code, pickles beside safetensors, hidden files, deeper folders and odd names are left out and shown."""
    (model_folder / ".git").mkdir()
    (model_folder / "1_Pooling" / "deep").mkdir()
    for name in ("modeling.py", "pytorch_model.bin", "pytorch_model.bin.index.json", ".x.json", "a b.json"):
        (model_folder / name).write_text("{}")
    (model_folder / "esc\x1b.json").write_text("{}")
    (model_folder / os.fsdecode(b"\xff.json")).write_text("{}")
    (model_folder / "1_Pooling" / "model.safetensors").write_text("")
    (model_folder / "chat_template.jinja").write_text("x")
    scan = scan_folder(model_folder)
    assert set(scan.skipped) == {
        ".git/",
        "1_Pooling/deep/",
        "1_Pooling/model.safetensors",
        "modeling.py",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        ".x.json",
        "a b.json",
        "'esc\\x1b.json'",
        "'\\udcff.json'",
        "README.md",
    }
    assert "chat_template.jinja" in {s.name for s in scan.layout.files}


def _remove(name: str) -> Callable[[Path, WeightFile], None]:
    return lambda folder, _: (folder / name).unlink()


def _write(name: str, content: bytes) -> Callable[[Path, WeightFile], None]:
    def change(folder: Path, _: WeightFile) -> None:
        (folder / name).write_bytes(content)

    return change


def _index(index: dict[str, str]) -> Callable[[Path, WeightFile], None]:
    return lambda folder, weight_file: _shard(folder, weight_file, index=index)


def _only_pickle(folder: Path, _: WeightFile) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def _two_weight_files(folder: Path, weight_file: WeightFile) -> None:
    (folder / "model.safetensors").rename(folder / "x.safetensors")
    (folder / "y.safetensors").write_bytes(weight_file({"y": ("U8", [1], b"y")}))


def _same_tensor_twice(folder: Path, weight_file: WeightFile) -> None:
    _shard(folder, weight_file)
    (folder / "model-2.safetensors").write_bytes(weight_file({"z": ("U8", [2], b"aa")}))


def _index_text(text: str) -> Callable[[Path, WeightFile], None]:
    def change(folder: Path, weight_file: WeightFile) -> None:
        _shard(folder, weight_file)
        (folder / "model.safetensors.index.json").write_text(text)

    return change


def _large_side_file(folder: Path, _: WeightFile) -> None:
    (folder / "big.json").write_text("")
    os.truncate(folder / "big.json", MAX_SIDE_FILE_BYTES + 1)


def _many_side_files(folder: Path, _: WeightFile) -> None:
    for number in range(62):
        (folder / f"{number}.txt").write_text("")


def _many_entries(folder: Path, _: WeightFile) -> None:
    for number in range(MAX_FOLDER_ENTRIES):
        os.link(folder / "README.md", folder / f"{number}.md")


def _replace(name: str, make: Callable[[Path], None]) -> Callable[[Path, WeightFile], None]:
    def change(folder: Path, _: WeightFile) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


_Z, _A = "model-1.safetensors", "model-2.safetensors"
_NOT_MODELS: dict[str, tuple[Callable[[Path, WeightFile], None], str]] = {
    "no-config": (_remove("config.json"), "it has no config.json"),
    "config-not-json": (_write("config.json", b"model: x"), "config.json is no JSON"),
    "config-no-object": (_write("config.json", b"[]"), "config.json is no JSON object"),
    "config-twice": (_write("config.json", b'{"a":1,"a":2}'), "key twice"),
    "config-link-to-device": (_replace("config.json", lambda p: p.symlink_to("/dev/zero")), "no config.json"),
    "no-weights": (_remove("model.safetensors"), "holds no safetensors weights"),
    "only-pickle": (_only_pickle, "pickles"),
    "pickle-in-disguise": (_write("model.safetensors", pickle.dumps({"w": [1.0] * 99})), "is a pickle"),
    "two-weight-files": (_two_weight_files, "2 weight files, but neither"),
    "weights-are-a-pipe": (_replace("model.safetensors", os.mkfifo), "no regular file"),
    "weights-gone": (_replace("model.safetensors", lambda p: p.symlink_to("gone")), "cannot be read"),
    "side-file-gone": (_replace("vocab.txt", lambda p: p.symlink_to("gone")), "cannot be read"),
    "side-file-pipe": (_replace("vocab.txt", os.mkfifo), "no regular file"),
    "no-tensors": (_write("model.safetensors", b"\2\0\0\0\0\0\0\0{}"), "0 tensors"),
    "index-parent": (_index({"z": "../model.safetensors"}), "no weight file of this folder"),
    "index-absolute": (_index({"z": "/tmp/model.safetensors"}), "no weight file of this folder"),
    "index-sub-folder": (_index({"z": "1_Pooling/model.safetensors"}), "no weight file of this folder"),
    "index-pickle": (_index({"z": "pytorch_model.bin"}), "no weight file of this folder"),
    "index-missing-shard": (_index({"z": _Z, "a": "model-3.safetensors"}), "not in the folder"),
    "index-too-little": (_index({"z": _Z, "b": _A}), "disagree about tensor 'a'"),
    "index-too-much": (_index({"z": _Z, "a": _A, "b": _A}), "disagree about tensor 'b'"),
    "index-swapped": (_index({"z": _A, "a": _Z}), "disagree about tensor 'a'"),
    "index-empty": (_index({}), "does not map"),
    "index-many-files": (
        _index({f"t{number}": f"{number}.safetensors" for number in range(4097)}),
        "names 4097 weight files",
    ),
    "index-list": (_index_text('{"weight_map": ["model-1.safetensors"]}'), "does not map"),
    "index-number": (_index_text('{"weight_map": {"z": 1}}'), "does not map"),
    "index-not-json": (_index_text("weight_map"), "is no JSON"),
    "index-key-twice": (_index_text('{"weight_map": {"z": "a", "z": "b"}}'), "key twice"),
    "same-tensor-twice": (_same_tensor_twice, "both in"),
    "large-side-file": (_large_side_file, "a side file has at most"),
    "many-side-files": (_many_side_files, "an image carries 64"),
    "many-entries": (_many_entries, "more than 16384 files"),
}


@pytest.mark.parametrize(("change", "reason"), _NOT_MODELS.values(), ids=_NOT_MODELS.keys())
def test_a_folder_that_makes_no_image_is_refused_with_its_reason(
    model_folder: Path,
    weight_file: WeightFile,
    change: Callable[[Path, WeightFile], None],
    reason: str,
) -> None:
    """Each broken folder is an ImageFormatError that says what is wrong and what to do."""
    scan_folder(model_folder)
    change(model_folder, weight_file)
    with pytest.raises(ImageFormatError, match=reason) as caught:
        scan_folder(model_folder)
    assert caught.value.fix


def test_a_path_that_is_no_folder_is_refused(model_folder: Path) -> None:
    """A file, nothing at all and a name that no file system has are no folders."""
    for path in (model_folder / "config.json", model_folder / "absent", Path("a\0b")):
        with pytest.raises(ImageFormatError, match="is no folder"):
            scan_folder(path)


def test_pickles_alone_are_answered_with_how_to_convert(model_folder: Path) -> None:
    """The fix names the way to safetensors."""
    (model_folder / "model.safetensors").rename(model_folder / "model.pt")
    with pytest.raises(ImageFormatError) as caught:
        scan_folder(model_folder)
    assert "save_pretrained" in caught.value.fix
