"""Checkpoints: they load to the bit, and a damaged file is never taken for a whole one."""

import copy
import io
import itertools
import json
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from minigrad.files import atomic
from minigrad.files.atomic import CheckpointError, write_json
from minigrad.training.checkpoint import latest, load, previous, save

ARRAYS = {"model/l0.W": np.arange(12.0).reshape(3, 4).T, "none": np.zeros((0, 3), np.float32),
          "number": np.float64(0.1), "flags": np.array([True, False]), "complex": np.array([1j]),
          "big": np.arange(3, dtype=">i4")}
META = {"step": 3, "rng": np.random.default_rng(0).bit_generator.state, "nan": float("nan"), "loss": 0.1 + 0.2,
        "text": "ü\n", "nested": {"list": [1, None, True]}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.npz"


def test_a_saved_checkpoint_loads_to_the_bit(path):
    save(path, ARRAYS, META)
    arrays, meta = load(path)
    assert list(arrays) == list(ARRAYS) and repr(meta) == repr(META)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()
        assert arrays[name].flags.f_contiguous == np.asarray(array).flags.f_contiguous


def test_numpy_reads_it_without_pickle_and_equal_states_give_equal_bytes(path):
    save(path, ARRAYS, META)
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == {*ARRAYS, "meta"}
        assert json.loads(bytes(archive["meta"]))["format"] == "minigrad checkpoint"
    first = path.read_bytes()
    save(path, ARRAYS, META)
    assert path.read_bytes() == first == previous(path).read_bytes()


# -- files that are not checkpoints ---------------------------------------------------------------------------------


def same(found):
    arrays, meta = found
    return list(arrays) == list(ARRAYS) and repr(meta) == repr(META) and all(
        arrays[name].tobytes() == array.tobytes() for name, array in ARRAYS.items())


def test_every_damage_is_noticed(path):
    """Flip a bit of every byte and cut the file anywhere: an error that names the file, or the same content."""
    save(path, ARRAYS, META)
    whole = path.read_bytes()
    harmless = 0
    changed = (whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1:] for i in range(len(whole)))
    short = (whole[:i] for i in range(0, len(whole), 9))
    for damaged in itertools.chain(changed, short):
        path.write_bytes(damaged)
        try:
            assert same(load(path))
            harmless += 1
        except CheckpointError as problem:
            assert str(path) in str(problem)
    assert harmless < len(whole) / 2  # such as dates and versions, which nobody reads


def rewritten(path, change):
    """The checkpoint with another header."""
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(bytes(arrays["meta"]))
    change(header, arrays)
    arrays["meta"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)


def pickled(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("meta.npy", "w") as entry:
        np.lib.format.write_array(entry, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize("make, sentence", [
    (lambda path: path.write_bytes(b""), "is cut short or damaged"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is cut short or damaged"),
    (lambda path: path.write_text("dear diary"), "is not a checkpoint of minigrad: it is not an .npz archive"),
    (lambda path: np.savez(path, a=np.ones(3)), "is not a checkpoint of minigrad, but another archive of arrays"),
    (lambda path: np.savez(path, meta=np.ones(3)), "is not a checkpoint of minigrad, but another archive of arrays"),
    (pickled, "is cut short or damaged: meta.npy contains object values, and a checkpoint contains only numbers"),
    (lambda path: rewritten(path, lambda header, _: header.update(version=2)),
     "was written by a newer minigrad in version 2 of the format, and this one reads versions up to 1: "
     "update minigrad"),
    (lambda path: rewritten(path, lambda _, arrays: arrays.update(more=np.ones(1))),
     "arrays or header entries were added or removed"),
    (lambda path: path.unlink(), "cannot be read: No such file or directory"),
    (lambda path: (path.unlink(), path.mkdir()), "cannot be read: Is a directory"),
])
def test_other_files_are_refused_by_name(make, sentence, path):
    save(path, ARRAYS, META)
    make(path)
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert str(error.value).startswith(f"{path} ") and sentence in str(error.value)


def archive_of(path, *entries, compress=zipfile.ZIP_STORED):
    """An archive of (name, bytes) under the checkpoint's name."""
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in entries:
            archive.writestr(f"{name}.npy", content)


def npy(array, shape=None):
    """An array as an .npy file, which may declare another shape."""
    file = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array) | ({} if shape is None else {"shape": shape})
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + array.tobytes()


def header(**changes):
    whole = {"format": "minigrad checkpoint", "version": 1, "arrays": ["a"], "meta": {}} | changes
    return ("meta", npy(np.frombuffer(json.dumps(whole).encode(), np.uint8)))


ONE = ("a", npy(np.ones(3)))


@pytest.mark.parametrize("entries, options, sentence", [
    ([("a", npy(np.zeros(1_000_000))), header()], {"compress": zipfile.ZIP_DEFLATED}, "it is compressed"),
    ([("a", npy(np.ones(3), (2**40,))), header()], {}, "a.npy is declared as float64 of shape (1099511627776,), and"),
    ([("a", npy(np.ones(3), (2**40, 0, 2**40))), header()], {}, "is declared as float64"),
    ([("a", npy(np.ones(3), (-1, -3))), header()], {}, "is declared as float64"),
    ([("a", npy(np.array(["text"]))), header()], {}, "contains str128 values"),
    ([("a", npy(np.zeros(2, [("x", float)]))), header()], {}, "values, and a checkpoint contains only numbers"),
    ([("a", b"\x93NUMPY\x09\x00"), header()], {}, "is cut short or damaged"),
    ([ONE, header(arrays=None)], {}, "arrays or header entries were added"),
    ([ONE, header(arrays=["b"])], {}, "arrays or header entries were added"),
    ([ONE, header(version=True)], {}, "another archive"), ([ONE, header(version=0)], {}, "another archive"),
    ([ONE, header(version="1")], {}, "another archive"), ([ONE, header(format=[])], {}, "another archive"),
    ([ONE, ("meta", npy(np.frombuffer(b"[" * 100_000, np.uint8)))], {}, "another archive"),
    ([ONE, ("meta", npy(np.frombuffer(b"\xff{}", np.uint8)))], {}, "another archive"),
    ([ONE, ("meta", npy(np.frombuffer(b'{"format": 1, "format": 2}', np.uint8)))], {}, "another archive"),
])
def test_an_archive_with_false_declarations_costs_no_memory(entries, options, sentence, path):
    archive_of(path, *entries, **options)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as error:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert sentence in str(error.value) and len(str(error.value)) < 600 and str(error.value).isprintable()


def test_an_archive_of_overlapping_entries_is_refused(path):
    """Many directory entries point at the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy(np.ones(10_000)))
        for i in range(100):
            again = copy.copy(archive.filelist[0])
            again.filename = f"a{i}.npy"
            archive.filelist.append(again)
    with pytest.raises(CheckpointError, match=r"its entries declare 8,\d+,\d+ bytes, and the file has"):
        load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_the_same_name_are_refused(path):
    archive_of(path, ONE, ONE, header(arrays=["a", "a"]))
    with pytest.raises(CheckpointError, match="it contains two arrays of the same name"):
        load(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting(path):
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        load(path)


# -- writing -------------------------------------------------------------------------------------------------------


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def two_saved(path):
    save(path, ARRAYS, {"step": 1})
    save(path, ARRAYS, {"step": 2})
    return contents(path.parent)


def test_the_previous_checkpoint_is_kept(path):
    assert latest(path) is None
    two_saved(path)
    assert latest(path) == path and (load(path)[1], load(previous(path))[1]) == ({"step": 2}, {"step": 1})
    path.unlink()  # as happens briefly in every save
    assert latest(path) == previous(path) == path.parent / "checkpoint.previous.npz"


@pytest.mark.parametrize("arrays, meta, problem", [
    ({"a": np.array([None])}, {}, ValueError), ({"meta": np.ones(1)}, {}, ValueError), ({}, {"f": print}, TypeError)])
def test_unfit_content_is_refused_before_anything_is_written(arrays, meta, problem, path):
    before = two_saved(path)
    with pytest.raises(problem):
        save(path, arrays, meta)
    assert contents(path.parent) == before


def test_nothing_is_written_through_a_link(path):
    """A link at the path of the partial file would truncate another file."""
    other = path.parent / "other.txt"
    other.write_text("precious")
    Path(f"{path}.partial").symlink_to(other)
    with pytest.raises(CheckpointError, match=r"checkpoint.npz.partial is a link: put the file itself in its place"):
        save(path, ARRAYS, META)
    assert other.read_text() == "precious"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_loses_nothing(path, monkeypatch):
    before = two_saved(path)
    monkeypatch.setattr(atomic, "open", lambda _, mode: open("/dev/full", mode), raising=False)
    for write in (lambda: save(path, ARRAYS, META), lambda: write_json(path, META)):
        with pytest.raises(CheckpointError, match=f"{path} cannot be written: No space left on device"):
            write()
        assert contents(path.parent) == before


def test_a_missing_folder_is_named(path):
    with pytest.raises(CheckpointError, match="cannot be written: No such file or directory"):
        save(path.parent / "nowhere" / path.name, ARRAYS, META)


def test_bytes_are_flushed_before_the_renames_and_the_folder_after_them(path, monkeypatch):
    save(path, ARRAYS, META)
    events = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        target = os.readlink(f"/proc/self/fd/{descriptor}") if Path("/proc/self/fd").exists() else "?"
        events.append(("fsync", Path(target).name))
        fsync(descriptor)

    def replaced(source, target):
        events.append(("replace", Path(source).name, Path(target).name))
        replace(source, target)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    save(path, ARRAYS, META)
    assert [event[0] for event in events] == ["fsync", "replace", "replace", "fsync"]
    assert events[1:3] == [("replace", "checkpoint.npz", "checkpoint.previous.npz"),
                           ("replace", "checkpoint.npz.partial", "checkpoint.npz")]
    assert events[0][1] in ("checkpoint.npz.partial", "?") and events[3][1] in (path.parent.name, "?")
