"""What an argument of a student's function is: its name says which one, a layout says the order of its axes.

All sizes differ, so that a wrong layout fails, and Wh in place of Wx shows by its shape.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

D, H, N, T, V = 4, 5, 2, 3, 6  # inputs, hidden units, examples, steps, classes
SIZES = {"N": N, "T": T, "D": D, "H": H, "V": V, "1": 1}
CHARS, NEXT = [0, 3, 1, 3], [3, 1, 3, 2]  # a text of characters, as indices; one occurs twice
WORDS = np.array([[1, 4, 1], [5, 1, 3]])
MASK = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])

WEIGHT = r"^_?(?!.*_param$)([WUVRwub](?![a-z]{3})|p_?[figoc]$|weight|bias|gamma|beta|theta)"
WEIGHTS = r"^(p|params?|parameters?|weights|theta|model)$"  # a dict of them
LABELS = r"^(t|ts|y|ys|Y|labels?|y_?(true|target|batch)|(\w+_)?targets?|targets?_\w+)$"
INDICES = r"^(idx|index|indices|ids|tokens?|words?|word_ids?)$"
STATE = r"^(prev_|last_|init_|initial_)?(h|a|c|s|hs|cs|hidden|cell|(hidden_|cell_)?state)" \
        r"(_?(prev|t|0|old|next|in|init|last|tm1|t_?1))*$"
CACHE = r"cache|^(mem|memory|saved|ctx|context|tape|store)$"
RATE = r"^(lr|eta|alpha|learn(ing)?_?rate|step_size)$"
PEEPHOLE = r"p|w_?c_?[ifo]$"
SIZE = [(r"hid|n_?[ah]$|units|state|^H$", "H"), (r"out|class|n_?y$|^V$", "V"), (r"seq|steps|^T$", "T"),
        (r"batch|^N$", "N"), (r"in|n_?x|feat|emb|vocab|dim|size|^D$", "D")]  # of a class's constructor


class Layout(NamedTuple):
    """The axes of x and of a state as letters of `sizes`; whether weights are (out, in); how they are named."""

    x: str  # "text" for a list of indices
    state: str
    out_first: bool
    scheme: str
    gates: int
    targets: str  # a key of TARGETS
    sizes: dict[str, int]

    def shape(self, axes: str) -> tuple[int, ...]:
        return tuple(self.sizes[letter] for letter in axes)

    def weight(self, name: str) -> tuple[int, ...]:
        """The shape of a weight from its name."""
        letters = name.strip("_").lower()
        hidden, inputs = self.sizes["H"], self.sizes["D"]
        is_output = bool(re.search(r"y|ho$|out", letters)) or letters == "c" or (
            letters[0] == "v" and self.scheme == "u w v") or (letters[-1] == "v" and self.scheme == "concatenated")
        out = self.sizes["V"] if is_output else self.gates * hidden
        if re.match(r"gamma|beta", letters):
            return (inputs if self.scheme == "letters" else hidden,)
        if letters[0] in "bc" or re.match(PEEPHOLE, letters):
            return (out, 1) if self.state in ("HN", "H1") else (out,)
        if self.scheme == "embedding":
            return self.sizes["V"], inputs
        is_recurrent = letters[0] == {"w u": "u", "u w v": "w"}.get(self.scheme) or (
            self.scheme == "letters" and "x" not in letters and re.search("[has]", letters[1:]))
        into = hidden if is_output or is_recurrent else hidden + inputs if self.scheme == "concatenated" else inputs
        return (out, into) if self.out_first else (into, out)

    def argument(self, name: str) -> Any:
        """The shape of an argument, a tuple, or its value if no gradient flows to it."""
        if re.search(LABELS, name):
            return self.target()
        if re.match(WEIGHT, name):
            return self.weight(name)
        if re.search(r"mask", name):
            return MASK.copy()
        if re.search(r"_param$|config", name):
            return {"mode": "train"}
        if re.search(STATE, name):
            return self.shape(self.state)
        if self.x == "text":
            return list(CHARS)
        return WORDS if self.scheme == "embedding" or re.search(INDICES, name) else self.shape(self.x)

    def target(self) -> Any:
        axes = TARGETS[self.targets](self.x)
        if self.targets.startswith("class"):
            if self.x == "text":
                return list(NEXT) if self.targets == "classes" else NEXT[-1]
            labels = np.arange(1, 1 + int(np.prod(self.shape(axes)))).reshape(self.shape(axes)) % self.sizes["D"]
            return labels if labels.ndim else int(labels)
        values = np.linspace(0.1, 0.9, int(np.prod(self.shape(axes)))).reshape(self.shape(axes))
        return values / values.sum(axis=re.search("[DV]", axes).start(), keepdims=True)  # type: ignore[union-attr]

    def number(self, name: str) -> Any:
        """A number for a constructor's parameter: a size, a seed or a rate."""
        if self.scheme == "embedding" and "vocab" in name:
            return self.sizes["V"]
        if "seed" in name or re.search(RATE, name):
            return 0 if "seed" in name else 1.0
        return next((self.sizes[letter] for pattern, letter in SIZE if re.search(pattern, name)), 0.1)


# the axes of targets from those of x: a class a step, values like x or like an output, a class a sequence
TARGETS: dict[str, Any] = {"like x": lambda x: x, "classes": lambda x: re.sub("[D1]", "", x),
                           "like y": lambda x: x.replace("D", "V"), "class": lambda x: re.sub("[DT1]", "", x)}
AXES = [("ND", "NH", False), ("DN", "HN", True), ("NTD", "NH", False), ("DNT", "HN", True), ("TND", "NH", False),
        ("TDN", "HN", True), ("D1", "H1", True), ("TD1", "H1", True), ("D", "H", True), ("D", "H", False),
        ("TD", "H", True), ("TD", "H", False), ("ND", "NH", True), ("NTD", "NH", True), ("TND", "NH", True),
        ("T1D", "1H", False)]
AXES_OF_TEXT = [("text", "H1", True), ("text", "H", True), ("text", "H", False), ("text", "1H", False)]


def layouts(weights: list[str], names: Iterable[str], embeds: bool, sizes: dict[str, int]) -> Iterator[Layout]:
    """All layouts for arguments of these names. Fused gates are tried where there are few weights."""
    has_targets = any(re.search(LABELS, name) for name in names)
    schemes = ["embedding"] if embeds else ["letters", "concatenated", "w u", "u w v"] if weights else ["letters"]
    gates = (1, 4, 3) if 0 < len(weights) <= 4 else (1,)
    for axes, targets, fused, scheme in itertools.product([AXES, AXES_OF_TEXT], TARGETS if has_targets else
                                                          ["classes"], gates, schemes):
        if axes is AXES or targets.startswith("class"):
            own = sizes if axes is AXES else sizes | {"D": sizes["V"], "T": len(CHARS)}
            yield from (Layout(*one, scheme, fused, targets, own) for one in axes)
