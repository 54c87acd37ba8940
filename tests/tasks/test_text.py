"""Text as numbers: reading a file, parallel streams, and the baselines of the simplest models."""

import sys

import numpy as np
import pytest

from minigrad.tasks.text import Text, bigram_bits, parallel_streams, unigram_bits


def test_the_language_reference_of_python():
    text = Text()
    assert len(text) > 100_000 and len(text.characters) > 50
    assert len(text.held_out) == round(0.1 * len(text))
    assert "assert" in text.decode(text.train[:100])


def test_a_python_without_its_language_reference_takes_numpys_docstrings(monkeypatch):
    for name in ("pydoc_data", "pydoc_data.topics"):  # some distributions of Python omit it
        monkeypatch.setitem(sys.modules, name, None)
    text = Text()
    assert len(text) > 100_000 and "array" in text.decode(text.train) and "docstrings of NumPy" in text.source
    monkeypatch.setattr(np, "__all__", [])
    with pytest.raises(ValueError, match="this Python has no pydoc_data, and its NumPy no docstrings: give a text"):
        Text()


def test_a_file_is_numbered_and_read_back(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("zwölf Boxkämpfer jagen\n" * 3, encoding="utf-8")
    text = Text(file)
    assert text.decode(np.concatenate([text.train, text.held_out])) == "zwölf Boxkämpfer jagen\n" * 3
    assert list(text.characters) == sorted(set("zwölf Boxkämpfer jagen\n"))


@pytest.mark.parametrize("content, sentence", [
    (None, "cannot be read"), (b"", "has 0 characters"), (b"short", "has 5 characters"),
    (b"\xff\xfe\x00 is not UTF-8, whatever follows", "is not UTF-8"),
])
def test_bad_files_are_named_in_a_sentence(tmp_path, content, sentence):
    file = tmp_path / "bad.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.txt.*{sentence}"):
        Text(file)
    with pytest.raises(ValueError, match="cannot be read"):
        Text(tmp_path)  # a folder


@pytest.mark.parametrize("n, size, shape", [(1000, 4, (249, 4)), (1000, 1, (999, 1)), (18, 32, (2, 8)), (3, 32, (2, 1)),
                                            (65, 2, (32, 2))])
def test_each_stream_of_a_text_continues_in_the_next(n, size, shape):
    batch = parallel_streams(np.arange(n), size)
    assert batch.x.shape == batch.targets.shape == shape
    np.testing.assert_array_equal(batch.x.T.ravel(), np.arange(batch.x.size))
    np.testing.assert_array_equal(batch.targets, batch.x + 1)


def test_baselines_against_their_definition():
    rng = np.random.default_rng(0)
    text = Text(text="".join(rng.choice(list("abcd"), p=[0.5, 0.25, 0.125, 0.125], size=20_000)))
    assert abs(unigram_bits(text) - 1.75) < 0.05  # the entropy of the coin
    assert abs(bigram_bits(text) - 1.75) < 0.05  # the previous character tells nothing
    text = Text(text="abc" * 1000)
    assert unigram_bits(text) == pytest.approx(np.log2(3), abs=0.01) and bigram_bits(text) < 0.01
    assert Text(text="a" * 20).characters == "a"
