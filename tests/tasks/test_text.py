"""Text as numbers: what is read, how it is laid in streams, and what the simplest models make of it."""

import numpy as np
import pytest

from minigrad.tasks.text import bigram_bits, read_text, split_text, streams, unigram_bits


def test_the_text_that_python_brings_along():
    text = read_text()
    assert len(text) > 100_000 and len(text.characters) > 50
    assert len(text.held_out) == round(0.1 * len(text))
    assert "assert" in text.decode(text.train[:100])


def test_a_file_is_numbered_and_read_back(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("zwölf Boxkämpfer jagen\n" * 3, encoding="utf-8")
    text = read_text(file)
    assert text.decode(np.concatenate([text.train, text.held_out])) == "zwölf Boxkämpfer jagen\n" * 3
    assert list(text.characters) == sorted(set("zwölf Boxkämpfer jagen\n"))


@pytest.mark.parametrize("content, sentence", [
    (None, "cannot be read"), (b"", "has 0 characters"), (b"short", "has 5 characters"),
    (b"\xff\xfe\x00 is no UTF-8 at all, whatever follows", "is not UTF-8"),
])
def test_bad_files_are_named_in_a_sentence(tmp_path, content, sentence):
    file = tmp_path / "bad.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.txt.*{sentence}"):
        read_text(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read_text(tmp_path)  # a folder


@pytest.mark.parametrize("n, batch, length", [(1000, 4, 7), (1000, 1, 1), (18, 32, 32), (3, 32, 32), (65, 2, 32)])
def test_streams_go_on_where_the_last_window_ended(n, batch, length):
    codes = np.arange(n)
    windows = streams(codes, batch, length)
    inputs, targets, first = next(windows)
    assert first and inputs.shape == targets.shape
    ends = inputs[-1]
    seen = 1
    for inputs, targets, first in windows:
        np.testing.assert_array_equal(targets, inputs + 1)
        if first:
            break
        np.testing.assert_array_equal(inputs[0], ends + 1)
        ends, seen = inputs[-1], seen + 1
    assert seen == max(1, (n - 1) // inputs.shape[1] // inputs.shape[0])


def test_baselines_against_their_definition():
    rng = np.random.default_rng(0)
    text = split_text("".join(rng.choice(list("abcd"), p=[0.5, 0.25, 0.125, 0.125], size=20_000)), "a coin")
    assert abs(unigram_bits(text) - 1.75) < 0.05  # the entropy of the coin
    assert abs(bigram_bits(text) - 1.75) < 0.05  # nothing to learn from the character before
    text = split_text("abc" * 1000, "a circle")
    assert unigram_bits(text) == pytest.approx(np.log2(3), abs=0.01) and bigram_bits(text) < 0.01
    assert split_text("a" * 20, "one letter").characters == "a"
