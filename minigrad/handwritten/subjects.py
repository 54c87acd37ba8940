"""A hand-written backward, its forward, and how to call the two.

People write functions or methods; weights are arguments, a dict, attributes or globals; a backward takes the gradients
of the outputs, or targets; it returns gradients, keeps them in attributes, or subtracts them from the weights. One
mechanism covers all: values are passed by name, from a pool of what is known. A parameter that is not in the pool is a
gradient that arrives.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigrad.engine.tensor import Tensor
from minigrad.handwritten.layers import STATE as NO_WEIGHT
from minigrad.handwritten.layers import Path, attributes, gradients_of, objects, places, weights_of
from minigrad.handwritten.recordable import LOSS
from minigrad.handwritten.source import Source, opened

Memory = tuple[Callable, dict[str, Any], Any]  # how to find a function or a method, the pool, gradients returned early
LABELS = r"^(t|ts|y|ys|Y|labels?|tags?|gold|truth|y_?(true|target|batch)|(\w+_)?targets?|targets?_\w+)$"
STATE = r"^(prev_|last_|init_|initial_)?(h|a|c|s|hs|cs|hidden|cell|(hidden_|cell_)?state)" \
        r"(_?(prev|t|0|old|next|new|nxt|in|init|last|tm1|t_?1))*$"
BEGIN = "0|prev|init|old"  # in a name of a state before a step
CACHE = r"cache|^(mem|memory|saved|ctx|context|tape|store)$"
OUTPUT = r"_?(y|p|o|out|prob|logits|h)"  # the beginning of the name of an attribute with what a forward computes
RATE = r"^(lr|eta|alpha|learn(ing)?_?rate|step_size)$"
GRADIENT = r"_?(d|g|err|up|out(?!s?$|puts?$)|top)"  # the beginning of a name of a gradient
OF = "_(update|grad)s?$"  # the end of one, behind its input's
ARRIVES = r"^_?(d[A-Z_]|dout|grad|g[A-Z_]|delta|diff_|upstream)|_(grad|gradient)$"  # of nothing but a gradient
GROUP = "grad|deriv|delta"  # in the name of what keeps gradients under the names of their weights
INPUT = r"^(x|xt|xs|inputs?|data|emb\w*)$"  # a name of x, in small letters without underscores


@dataclass
class Subject:
    name: str  # of the backward, or of the class
    convention: str
    backward_name: str
    forward_name: str  # that of the backward, if one function returns the loss and its gradients
    loss_name: str = ""  # computes the loss from what the forward returns
    cells: tuple[str, ...] = ()  # the backwards, or classes, of a step that it calls
    is_class: bool = False
    course: str = ""  # rnn, rnn_cell, lstm or lstm_cell, if it is one of the course's, whose forwards are known
    order: tuple[str, ...] = ()  # the parameters of the forward
    takes: tuple[str, ...] = ()  # those of the backward
    loss_takes: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()  # those of the class's constructor
    results: tuple[str, ...] = ()  # names of what the forward returns, "" where it has none
    returns: tuple = ()  # names of what the backward returns, nested; a loss beside its gradients first
    loss_at: int = 0  # where it stands among these
    optional: tuple[str, ...] = ()  # parameters of the forward that it may go without
    fills: str = ""  # what the backward takes to fill it with gradients
    flags: tuple[str, ...] = ()  # what asks the one function for gradients, True
    targets: tuple[str, ...] = ()  # what it takes as targets, by other names than the usual
    known: dict[str, Any] = field(default_factory=dict)  # path → what the argument is, as the file's own calls show it
    given: dict[str, Any] = field(default_factory=dict)  # what only the backward or the loss takes, as they show it
    alias: dict[str, str] = field(default_factory=dict)  # what it or the loss takes → the forward's name for it
    sizes: dict[str, Any] = field(default_factory=dict)  # globals that are set for the file
    held: tuple[str, ...] = ()  # the weights that are attributes or globals
    tables: tuple[str, ...] = ()  # globals that keep weights: dicts, or objects; an object may be an argument
    is_closure: bool = False  # whether the forward returns the backward
    is_guess: bool = False  # whether it was found by what it computes, and not by its name
    # what a candidate adds
    example: Any = None  # an Example: the arguments of the constructor and of the forward
    paths: dict[str, str] = field(default_factory=dict)  # input → where it is in the example, params.Wf
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)  # and weights that are held
    constants: dict[str, Any] = field(default_factory=dict)  # what only the backward takes, without a gradient
    true_loss: Callable | None = None  # of (outputs, targets), where the user's code has no loss
    elsewhere: Source | None = None  # the forward's file, if it is another one
    remark: str = ""  # what the choice of the example leaves open
    unnamed: set[str] = field(default_factory=set)  # keys of returned arrays that are of no input
    has_others: bool = False  # whether the backward returned arrays of many axes that were not found to be of an input
    arrays: tuple[Path, ...] = ()  # where its instance has arrays once it is made
    further: tuple[Path, ...] = ()  # those that are weights, as gradients of their names and shapes tell
    overlooked: set[Path] = field(default_factory=set)  # weights that only the gradients of the last call showed
    detached: set[str] = field(default_factory=set)  # weights whose gradient in `grads` is not that of its layer
    # what the first call of the forward tells
    arriving: tuple[int, ...] = (0,)  # the outputs whose gradients the backward gets
    is_loss: bool = False
    sign: int = 1  # −1 where it returns what is added to the weights
    adds_up: bool = False  # whether it adds the gradients that it keeps to those of the call before
    has_loss: bool = True  # whether the forward, or the function that computes the loss, returns it

    @property
    def together(self) -> bool:
        return self.forward_name == self.backward_name

    @property
    def forward_in_words(self) -> str:
        return f"the forward of {self.name}" if self.is_class or self.together else self.forward_name

    @property
    def needs(self) -> tuple[str, ...]:
        """The names that the file must define."""
        names = (self.name,) if self.is_class else (self.backward_name, self.forward_name, self.loss_name)
        return tuple(filter(None, (*names, *self.held, *self.tables, *self.cells)))

    def with_less(self) -> Iterator[Subject]:
        """The subject without what the forward may go without, and with the file's own numbers for its sizes."""
        if self.optional:
            yield replace(self, order=tuple(name for name in self.order if name not in self.optional))
        if self.sizes:
            yield replace(self, sizes={"open": opened})

    # -- forward ----------------------------------------------------------------------------------------

    def arguments(self, inputs: dict[str, Any], find: Callable[[str], Any]) -> tuple[tuple, tuple]:
        """The arguments of the constructor, and of the forward; `find` gives a class by its name."""
        example = replace(self.example, constants=copy.deepcopy(self.example.constants))
        found = example.arguments({path: inputs[name] for name, path in self.paths.items()}, find)
        return found[:len(self.makes)], found[len(self.makes):]

    def owner(self, namespace: dict[str, Any], inputs: dict[str, Any]) -> Callable[[str], Callable]:
        """How to find a function or method by its name, once the weights have these values."""
        if not self.is_class:
            namespace |= {name: copied(inputs[name]) for name in self.held if name in inputs}
            for d in self.in_globals(namespace).values():
                d.fill(0)
            arguments = dict(zip(self.order, self.arguments(inputs, namespace.__getitem__)[1]))
            namespace |= {name: one for name, one in arguments.items() if name in self.tables}
            for table in self.tables:
                put_weights(namespace[table], inputs, table)
                for place in gradients_of(namespace[table], table):
                    place.put(np.zeros_like(place.value))
            return namespace.__getitem__
        layer = namespace[self.name](*self.arguments(inputs, namespace.__getitem__)[0])
        put_weights(layer, inputs, further=self.further)
        for name, value in attributes(layer).items():
            if isinstance(value, float) and name != "alpha" and self.is_rate(layer, name):
                setattr(layer, name, 1.0)  # a step is the gradient
        return lambda name: getattr(layer, name) if name else layer

    def is_rate(self, layer: Any, name: str) -> bool:
        """Whether an attribute is a learning rate, by its name; a `rate` that the forward reads is that of dropout."""
        reads = getattr(getattr(layer, self.forward_name, None), "__code__", None)
        return bool(re.search(RATE, name)) if name != "rate" else name not in getattr(reads, "co_names", ())

    def is_target(self, name: str) -> bool:
        """Whether the backward takes targets by this name; y beside a gradient that arrives is a result."""
        is_result = name in self.results or (bool(re.match("_?[yY]s?$", name)) and any(
            re.search(ARRIVES, one) for one in self.takes))
        return name in self.targets or (bool(re.search(LABELS, name)) and not is_result)

    def forward(self, namespace: dict[str, Any], inputs: dict[str, Any]) -> tuple[tuple, Memory]:
        """(outputs, what the backward needs)."""
        return self.run_forward(self.owner(namespace, inputs), inputs)

    def pool(self, owner: Callable, inputs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the forward, and what the backward takes besides."""
        find = owner(self.forward_name).__globals__.__getitem__ if self.is_class else owner
        found = copy.deepcopy(self.constants) | dict(zip(self.order, self.arguments(inputs, find)[1])) | {
            name: owner(name) for name in self.tables if name in (*self.order, *self.takes)}
        found |= {name: found[own] for name, own in self.alias.items() if name not in found}
        if self.fills:
            groups = [one for one in (*found.values(), *map(owner, self.tables)) if [*places(one)]]
            found[self.fills] = zeros(max(groups, key=lambda one: len([*places(one)]), default={}))
        for name in {*self.takes, *self.loss_takes} - found.keys():  # h0 of what the forward calls h
            same = [other for other in self.order if state(name) and state(other) == state(name)]
            if len(same) == 1 and re.search(BEGIN, name):
                found[name] = found[same[0]]
        return found

    def result(self, owner: Callable, pool: dict[str, Any]) -> tuple:
        more = dict.fromkeys(self.flags, True) | {name: pool[name] for name in pool if name == self.fills}
        more = more if self.together else {}
        result = as_tuple(owner(self.forward_name)(*(pool[name] for name in self.order), **more))
        return loss_first(result, self.loss_at if len(result) > self.loss_at else 0)  # recorded, it returns it alone

    def run_forward(self, owner: Callable, inputs: dict[str, Any], keeps: bool = False) -> tuple[tuple, Memory]:
        """(outputs, what the backward needs), after gradients were set to zero if they are not kept."""
        if self.is_class and not keeps and not any(isinstance(x, Tensor) for x in inputs.values()):
            for one in objects(owner("")):  # before the forward: it may clear what that keeps too
                reset(one, r"_?(zero|clear|reset)_?grad")
        pool = self.pool(owner, inputs)
        before = {name: copied(w) for name, w in self.weights(owner).items()}
        result = self.result(owner, pool)
        if self.together:
            self.is_loss = True
            while isinstance(result[0], tuple):  # (loss, h), gradients
                result = (result[0][0], *result[1:])
            if isinstance(result[0], dict):
                losses = [y for key, y in result[0].items() if re.search(LOSS, str(key), re.I)]
                result = (*losses[:1], *(d for key, d in result[0].items() if re.match(GRADIENT, str(key))))
            return result[:1], (owner, before | {name: pool[name] for name in pool if name == self.fills}, result[1:])
        if self.is_closure:
            pool |= {self.backward_name: next(filter(callable, result))}
            result = tuple(y for y in result if not callable(y))
        names = self.results if len(self.results) == len(result) else ("",) * len(result)
        pool |= {name: y for name, y in zip(names, result) if name in (*self.takes, *self.loss_takes)}
        rest = [name for name in self.takes if name not in pool]
        cache = [name for name in rest if re.search(CACHE, name)][-1:] or [
            name for name in rest if not re.match(GRADIENT, name) and len(rest) > 1 and len(result) > 1
            and names[-1] not in self.takes][-1:]
        pool |= dict.fromkeys(cache, result[-1])
        if any(map(self.is_target, self.takes)) and len(rest) == len(result) and not any(
                re.match("_?(d|g|err)", name) for name in rest):  # what it returned, by other names
            pool |= dict(zip(rest, result))
        free = [name for name in rest if not re.match(GRADIENT, name) and name not in (*cache, *pool)]
        are_named = bool({*names} & {*self.takes})
        if not cache and not are_named and len(free) == len(result) < len(rest):  # beside gradients that arrive
            pool |= dict(zip(free, result))
        elif are_named:  # the forward's results are passed on, one of them by another name
            others = [y for name, y in zip(names, result) if name not in self.takes]
            known = [i for i, name in enumerate(self.takes) if name in names]
            near = sorted(free, key=lambda name: min(abs(self.takes.index(name) - i) for i in known))[:len(others)]
            pool |= dict(zip([name for name in free if name in near], others))
        arriving = [name for name in rest if name not in pool]
        returned = list(zip(names, result[:-1] if cache else result))
        outputs = [(name, y) for name, y in returned if is_output(y)] or [  # in the dict that is the cache too
            (key, y) for _, one in returned if isinstance(one, dict) for key, y in one.items() if is_output(y) and any(
                same_name(str(key), name) and not re.search(BEGIN, str(key)) for name in arriving)]
        if len(outputs) < len(arriving):  # a state of two arrays, whose gradients arrive together or one by one
            outputs = [(name, y) for name, y in returned if is_output(y) or is_nest(y)]
            single = [one for name, y in outputs for one in (zip(
                name if isinstance(name, tuple) else ("",) * len(y), y) if is_nest(y) else [(name, y)])]
            outputs = single if len(single) == len(arriving) else outputs
        takes_targets = any(map(self.is_target, self.takes))
        self.is_loss = not arriving or takes_targets
        if self.is_loss and not arriving:
            return (self.loss(owner, pool, outputs),), (owner, pool, None)
        at = [next((k for k, (own, _) in enumerate(outputs) if own and same_name(str(own), name)), -1)
              for name in arriving]
        told = [k for k in at if k >= 0]
        if len(set(told)) == len(told) > 0 and len(outputs) >= len(arriving):  # the others in their order
            left = (k for k in range(len(outputs)) if k not in told)
            at = [k if k >= 0 else next(left) for k in at]
        else:
            at = list(range(len(arriving)))
        rest_of_it = tuple(y for name, y in outputs if name not in self.takes)
        given: list[Any] = [outputs[k][1] for k in at if k < len(outputs)]
        states = {path.rpartition(".")[2] for path, known in self.example.known.items() if known.kind == "sequence"}
        if len(rest_of_it) > len(arriving) == 1 and not cache and (
                (not self.is_class and {*self.takes} & {*self.order}) or bare(arriving[0]) in states):
            given = [rest_of_it]
        loss = (self.loss(owner, pool, outputs),) if self.is_loss else ()
        values = [one for y in given for one in apart(y)]
        self.arriving = tuple(range(len(loss) + len(values) + max(len(arriving) - len(given), 0)))
        pool[""] = (arriving, given)
        return (*loss, *values), (owner, pool, None)

    def loss(self, owner: Callable, pool: dict[str, Any], outputs: list[tuple[str, Any]]) -> Any:
        """The scalar among the outputs, or what the user's loss, or the usual one, makes of them."""
        scalars = [y for name, y in sorted(outputs, key=lambda one: one[0] not in self.takes) if not isinstance(
            y, (dict, list)) and np.ndim(y) == 0]  # a probability that is handed on before the loss
        self.has_loss = bool(scalars or self.loss_name)
        if scalars and not self.loss_name:
            return scalars[-1]
        if self.true_loss is None and self.loss_name:
            value = as_tuple(owner(self.loss_name)(*(pool[name] for name in self.loss_takes)))[0]
            if math.prod(np.shape(value)) != 1:
                raise ValueError(f"{self.loss_name} gives an array of shape {np.shape(value)}, not a number")
            return value
        if self.true_loss is None:
            return np.zeros(())
        if not outputs and self.is_class:
            outputs = [(name, y) for name, y in attributes(owner("")).items() if re.match(OUTPUT, name)
                       and is_output(y)]
        labels = next(pool[name] for name in self.takes if self.is_target(name))
        return self.true_loss([stacked(y) for _, y in outputs], labels)

    # -- backward ---------------------------------------------------------------------------------------

    def backward(self, namespace: dict[str, Any], memory: Memory, d_outputs: list[np.ndarray]) -> dict[str, Any]:
        """{input: gradient}."""
        owner, pool, result = memory
        result, before = in_dicts(result), pool
        if result is None:
            names, outputs = pool.get("", ((), ()))
            if self.is_loss:  # whose gradient is 1 to such a backward, which is linear in all that arrive
                d_outputs = [d_outputs[0], *(d / d_outputs[0] for d in d_outputs[1:])]
            arriving = iter(d_outputs[self.is_loss:])
            pool = pool | {name: like(y, arriving) for name, y in zip(names, outputs)}
            before = {name: copied(w) for name, w in self.weights(owner).items()}
            backward = pool[self.backward_name] if self.is_closure else owner(self.backward_name)
            result = in_dicts(backward(*(pool[name] for name in self.takes)))
        found: dict[str, Any] = {}
        if self.fills:
            group = in_dicts(pool[self.fills])
            found |= self.named(group) if isinstance(group, dict) else next(filter(None, (
                self.inside(path, group) for path in self.example.names)), {})
        for called, root in self.roots(owner).items():
            found = self.kept(root, called) | found
        found |= self.named(result, self.returns[self.together:], {*found}) if result is not None else {}
        if self.is_class:
            self.overlooked |= self.told_by_gradients(owner(""), result, [
                d for name, d in found.items() if name in self.held])
        else:
            namespace = owner.__self__  # type: ignore[attr-defined]
            found = {name: d.copy() for name, d in self.in_globals(namespace).items() if np.any(d)} | found
        known = {*self.inputs.values()}, {*map(id, found.values())}
        self.has_others = any(d.ndim > 2 and d.shape not in known[0] and id(d) not in known[1]
                              for _, d in leaves(result))  # of all gates in one array, say
        after = self.weights(owner)
        for name in before:  # a backward that takes the step itself, by a learning rate of 1
            if name not in found and name in after and not np.array_equal(before[name], after[name]):
                found[name] = before[name] - after[name]
        if self.is_loss:
            found = {name: None if d is None else np.asarray(d_outputs[0]) * d for name, d in found.items()}
        return found if self.sign == 1 else {
            name: None if d is None else self.sign * np.asarray(stacked(d)) for name, d in found.items()}

    def weights(self, owner: Callable) -> dict[str, Any]:
        found = {name: owner(name) for name in self.held if name in self.inputs} if not self.is_class else {}
        for called, root in self.roots(owner).items():
            found |= {name: ones[0].value for name, ones in weights_of(root, called, self.further).items()
                      if name in self.inputs}
        return found

    def roots(self, owner: Callable) -> dict[str, Any]:
        """The objects that keep weights, by their names: the instance, which has none, or globals."""
        return {"": owner("")} if self.is_class else {table: owner(table) for table in self.tables}

    def told_by_gradients(self, root: Any, result: Any, others: list[Any]) -> set[Path]:
        """Where an object keeps arrays that nothing else tells as weights, and gradients of their names and shapes are
        returned or kept, and are not those of others."""
        gradients = gradients_of(root, "", self.further)
        told = {place.path for ones in weights_of(root, "", self.further).values() for place in ones}
        told |= {place.path for place in gradients}
        mine = [place for place in places(root) if place.path in self.arrays and place.path not in told]
        found = set[Path]()

        def told_as_weight(path: Path) -> bool:
            """By its name, or, as kernel["output"], by another one beside it in a dict."""
            return not re.search(NO_WEIGHT, str(path[-1])) or any(path[1:] and path[:-1] == one[:-1] for one in found)
        for path, d in 2 * [*((place.path, place.value) for place in gradients), *leaves(result)]:  # then those beside
            same = [place.path for place in mine if np.shape(d) == place.value.shape and ends_alike(path, place.path)
                    and told_as_weight(place.path)]
            if len(same) == 1 and not any(d is one for one in others):
                found.add(same[0])
        return found

    def in_globals(self, namespace: dict[str, Any]) -> dict[str, np.ndarray]:
        """The gradients of weights that are globals and are kept in globals, as dW_f beside W_f."""
        found = {self.input_of(key, self.held): d for key, d in namespace.items() if isinstance(d, np.ndarray) and
                 d.dtype.kind == "f" and key not in self.held and re.match(GRADIENT, key)}
        return {name: d for name, d in found.items() if name and d.shape == self.inputs.get(name)}

    def kept(self, root: Any, called: str = "") -> dict[str, Any]:
        """The gradients that an object keeps: in `grads`, a dict or a list, in attributes such as dW, or as W.grad."""
        weights = {ones[0].name: name for name, ones in weights_of(root, called, self.further).items()
                   if name in self.inputs}
        weights |= {(name,): name for name in self.held if name not in weights.values()}
        found: dict[str, Any] = {}
        for place in gradients_of(root, called, self.further):
            own = place.name
            same = [weight for name, weight in weights.items() if len(name) == len(own) and all(
                map(names_gradient, own, name))]
            same = same or [weight for name, weight in weights.items() if ends_alike(own, name) and re.search(
                GROUP, str(own[0])) and len(own) == len(name) + 1]
            same = same or [weight for name, weight in weights.items() if own == tuple(
                part for part in name if part not in ("w", "W"))]  # g[0][1] of w[0][1]
            beside = [weight for name, weight in weights.items() if name[:-1] == own[:-1]]
            if not same and isinstance(own[-1], int) and len(beside) == len(place.holder):
                same = [beside[own[-1]]]
            found |= dict.fromkeys(same[:1], place.value)
        collected = {("grads", *place.path[1:]): name for name, ones in weights_of(root, called, self.further).items()
                     for place in ones if name in found and place.path[0] == "params"}
        self.detached |= {name for place in gradients_of(root, called, self.further)
                          for name in [collected.get(place.path)]
                          if name and not np.array_equal(place.value, found[name])}
        return found

    def named(self, result: Any, own: tuple = (), kept: Iterable[str] = ()) -> dict[str, Any]:
        """What a backward returned, by the names of the inputs.

        own   the names in its return, nested like it
        kept  the inputs whose gradients it keeps: what has no name is not theirs
        """
        if isinstance(result, dict):
            by_key = {key: "" if is_nest(d) else self.input_of(str(key)) for key, d in result.items()}
            if not any(by_key.values()) and (by_end := self.joined("", result)):
                return by_end
            by_key = {key: name or self.ending(str(key), by_key.values()) for key, name in by_key.items()}
            self.unnamed |= {key for key, name in by_key.items() if isinstance(key, str) and not name and isinstance(
                result[key], np.ndarray) and result[key].ndim}
            nested = [self.joined(bare(str(key)), value) or (self.named(value) if not any(by_key.values()) else {})
                      for key, value in result.items() if not by_key[key] and isinstance(value, (dict, tuple, list))]
            return {name: result[key] for key, name in by_key.items() if name} | {
                name: d for one in nested for name, d in one.items()}
        whole = [found for path in self.example.names if self.example.known[path].kind == "sequence" for found in [
            self.inside(path, result)] if found and all(np.shape(d) == self.inputs[name] for name, d in found.items())]
        if len(whole) == 1 and not any(isinstance(name, str) and self.input_of(name) for name in own):
            return whole[0]
        is_one = is_output(result) and np.shape(stacked(result)) in self.inputs.values()  # for each step
        parts = list(result) if isinstance(result, (tuple, list)) and not is_one else [result]
        own = own if len(own) == len(parts) else ("",) * len(parts)
        are = [True] * len(parts)
        if self.together and any(own):  # the last state is no gradient
            are = [name not in self.order and (not name or bool(re.search(f"^{GRADIENT}|{OF}", name)) or is_group(d))
                   if isinstance(name, str) else any(re.match(f"{GRADIENT}|$", str(one)) for one in name)
                   for name, d in zip(own, parts)]
        elif () not in self.inputs.values():  # nor is the loss
            are = [not (name and isinstance(d, (float, np.number)) and not re.match(GRADIENT, str(name)))
                   for name, d in zip(own, parts)]
        own, parts = tuple(itertools.compress(own, are)), list(itertools.compress(parts, are))
        if not parts:
            return {}
        names = [self.input_of(name) if isinstance(name, str) and re.search(f"^(d|g|nabla)|{OF}", name)
                 else "" for name in own]
        groups = [is_group(d) or isinstance(d, dict) or (isinstance(d, list) and (self.is_like_a_list(d) or (
            isinstance(name, str) and bool(self.joined(bare(name), d))))) for name, d in zip(own, parts)]
        if any(groups):  # dx, dh, {"W": dW}
            found: dict[str, Any] = {}
            paths = [path for path in self.example.names if self.example.known[path].kind != "array"]
            for its, d in itertools.compress(zip(own, parts), groups):
                own_name = bare(its) if its and isinstance(its, str) else ""  # Ws of dWs, for a dict W
                keys = self.joined(own_name, d) or self.joined(own_name.removesuffix("s"), d) or self.joined("", d)
                by_name = {name: one for name, one in zip(map(self.input_of, its), d) if name} if isinstance(
                    its, tuple) and len(its) == len(d) and all(isinstance(one, str) for one in its) else {}
                keys = keys or (by_name if len(by_name) == len(d) else {})
                alike = next(filter(None, (self.inside(path, d) for path in paths)), {})
                taken = {self.paths[name].partition(".")[0] for name in alike}  # each of two alike has its own
                paths = [path for path in paths if path not in taken]
                found |= keys or alike or self.named(d, its if isinstance(its, tuple) else (), kept)
            found |= {name: d for name, d, many in zip(names, parts, groups) if name and not many}
            rest = [d for name, its, d, many in zip(names, own, parts, groups) if not many and not name and (
                not its or (its not in self.results and isinstance(d, np.ndarray)) or re.search(
                    "(^|_)(d|g|nabla)", str(its)))]  # no states of steps
            left = [name for name in self.inputs if name not in {*found, *kept}]
            told_by_shape = self.told_apart(left, [np.shape(stacked(d)) for d in rest])
            return found | (dict(zip(told_by_shape, rest)) if told_by_shape else self.in_order(left, rest) or dict(
                zip(left, rest)))
        told = [name for name in names if name]
        of_inputs = [d for name, d in zip(names, parts) if name or np.shape(stacked(d)) in self.inputs.values()]
        if len(set(told)) == len(told) >= (1 if self.together else max(len(of_inputs), 1)):
            by_name = {name: d for name, d in zip(names, parts) if name}
            others = [d for name, d in zip(names, parts) if not name and np.ndim(d)]
            return by_name | self.of_their_shapes(others, {*self.held} - {*by_name})
        arguments = [name for name, path in self.paths.items() if "." not in path and path not in self.makes]
        weights = [name for name in self.inputs if name not in arguments]
        orders = [list(self.inputs), weights, arguments] if self.is_loss else [list(self.inputs), arguments, weights]
        shapes = [np.shape(stacked(d)) for d in parts]
        fitting = [order for order in orders if len(order) == len(parts) and not {*order} <= {*kept} and all(
            name in ("", other) for name, other in zip(names, order))]
        order = next((order for order in fitting if [self.inputs[name] for name in order] == shapes), None) or (
            self.told_apart(weights, shapes) if fitting and not told else None) or next(iter(fitting), None)
        if not order and told and all(name or re.match(GRADIENT, str(its)) or kept for name, its in zip(names, own)):
            by_name = {name: d for name, d in zip(names, parts) if name}
            return by_name | self.of_their_shapes([d for name, d in zip(names, parts) if not name],
                                                  {*(self.held or self.inputs)} - {*by_name, *kept})
        if not order:  # fewer than there are inputs: arguments of their shapes, if these tell them apart
            order = self.told_apart(arguments if self.held else list(self.inputs), shapes)
        if not order and kept and shapes != [self.inputs[name] for name in orders[0][:len(parts)]]:
            return self.of_their_shapes(parts, {*self.inputs} - {*kept})
        if len(parts) > len(orders[0]):
            return {}
        return dict(zip(order or orders[0], parts))

    def in_order(self, names: list[str], parts: list[Any]) -> dict[str, Any]:
        """Gradients in the order of the inputs, without those of other shapes; nothing if one has the shape of none."""
        found, left = dict[str, Any](), iter(names)
        for d in parts:
            name = next((one for one in left if self.inputs[one] == np.shape(stacked(d))), "")
            found[name] = d
        return {} if "" in found else found

    def told_apart(self, names: list[str], shapes: list[tuple]) -> list[str] | None:
        """The inputs of these shapes, if each is that of one of the names, and of another one."""
        found = [[name for name in names if self.inputs[name] == shape] for shape in shapes]
        flat = list(itertools.chain(*found))
        return flat if len(set(flat)) == len(flat) == len(shapes) and all(found) else None

    def of_their_shapes(self, parts: list[Any], left: set[str]) -> dict[str, Any]:
        """Gradients without a name, by their shapes if these tell them apart among the inputs that are left."""
        alike = [[name for name in self.inputs if name in left and self.inputs[name] == np.shape(d)] for d in parts]
        if any(names[1:] or alike.count(names) > 1 for names in alike if names):
            self.unnamed.add("arrays without a name")
            return {}
        return {names[0]: d for names, d in zip(alike, parts) if names}

    def is_like_a_list(self, d: list) -> bool:
        """Whether gradients have the shapes of the arrays of an argument that is a list, as one for each step."""
        lists = [found for path in self.example.names if self.example.known[path].kind == "sequence" and (
            found := self.inside(path, d))]
        return any(np.shape(one) == self.inputs[name] for found in lists for name, one in found.items())

    def inside(self, path: str, group: Any) -> dict[str, Any]:
        """The gradients in a tuple or a list that is nested like this argument; nothing if it is not."""
        known = self.example.known[path]
        if known.kind == "array":
            return {name: group for name, own in self.paths.items() if own == path and isinstance(group, np.ndarray)
                    and group.ndim == len(self.inputs[name])}
        if known.kind != "sequence" or not isinstance(group, (tuple, list)) or len(group) != len(known.keys):
            return {}
        found = [self.inside(f"{path}.{key}", one) for key, one in zip(known.keys, group)]
        return {name: d for one in found for name, d in one.items()} if all(found) else {}

    def joined(self, prefix: str, group: Any) -> dict[str, Any]:
        """The gradients in nested dicts and lists whose joined keys end an input's path, or nothing."""
        if isinstance(group, (dict, list, tuple)):
            pairs = group.items() if isinstance(group, dict) else enumerate(group)
            found = [self.joined("_".join(filter(None, (prefix, bare(str(key))))), one) for key, one in pairs]
            return {name: d for one in found for name, d in one.items()} if all(found) else {}
        full = {name: self.paths.get(name, name).replace(".", "_") for name in self.inputs}
        names = [name for name, path in full.items() if f"_{path}".endswith(f"_{prefix}")] or [
            name for name, path in full.items() if f"_{path}".lower().endswith(f"_{prefix}".lower())]
        return {names[0]: group} if len(names) == 1 else {}

    def ending(self, key: str, told: Iterable[str]) -> str:
        """The one weight of a layer, cell_Wx, whose gradient has the key Wx, if no other key tells it; "" if none."""
        found = [name for name in self.held if name.endswith((f"_{key}", f"_{bare(key)}"))]
        return found[0] if len(found) == 1 and found[0] in {*self.inputs} - {*told} else ""

    def input_of(self, key: str, wanted: Iterable[str] = ()) -> str:
        """The input whose gradient `key` names, as dW_f, dLdW, grad_W; "" if none."""
        wanted = tuple(wanted or self.inputs)
        short = bare(key)
        for same in (lambda name: name in (key, short), lambda name: names_gradient(key, name),
                     lambda name: re.match(INPUT, bare(f"d{name}")) and re.match(INPUT, short),
                     lambda name: state(name) and state(name) == state(short)):
            found = [name for name in wanted if same(name)]
            if len(found) == 1:
                return found[0]
            if short in self.results and short in self.takes and short not in wanted:
                break  # da of the a that it is given, and not of a0
        return ""


def bare(key: str) -> str:
    """The name in a name of a gradient, in small letters without underscores if it is long."""
    name = re.sub(r"^(dL_?d|diff_|grads?_?(?=\w)|delta_|nabla_|d_?)|_(grads?|gradients?|diff|updates?|d|g)$", "",
                  key) or key
    return name.replace("_", "").lower() if len(name) > 2 else name


def names_gradient(one: Any, other: Any) -> bool:
    """Whether a key or an index is that of the gradient of what has the other one."""
    return one == other or (isinstance(one, str) and isinstance(other, str) and (
        bare(one) == bare(f"d{other}") or one in (f"g{other.rstrip('_')}", f"g_{other}")))


def ends_alike(path: Path, other: Path) -> bool:
    """Whether a gradient's path ends as that of what it belongs to, or the other way round, by a name."""
    pairs = list(zip(path[::-1], other[::-1]))
    return any(isinstance(part, str) for part, _ in pairs) and all(itertools.starmap(names_gradient, pairs))


def leaves(nested: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The arrays in nested dicts, lists and tuples, with their paths."""
    if isinstance(nested, (dict, list, tuple)):
        for key, one in nested.items() if isinstance(nested, dict) else enumerate(nested):
            yield from leaves(one, (*path, key))
    elif isinstance(nested, np.ndarray):
        yield path, nested


def state(name: str) -> str:
    """The letter of a state, h of h_prev, hprev and dh0; "" of anything else."""
    found = re.search(STATE, name)
    return found[2][0] if found else ""


def same_name(output: str, gradient: str) -> bool:
    """Whether a gradient that arrives, dh_next, is that of an output, h."""
    output, gradient = bare(f"d_{output}").lower(), bare(gradient).lower()
    return output == gradient or (bool(state(output)) and state(output) == state(gradient))


def zeros(group: Any) -> Any:
    """A group of arrays like this one, all zero."""
    found = copy.deepcopy(group) if not any(isinstance(place.value, Tensor) for place in places(group)) else {}
    for one in places(found):
        one.put(np.zeros(np.shape(one.value)))
    return found


def copied(w: Any) -> Any:
    """A weight of its own, for a backward may take the step itself."""
    return w.copy() if isinstance(w, np.ndarray) else w


def loss_first(values: tuple, at: int) -> tuple:
    """What a function returns, or its names, with the loss that is at this place before the rest."""
    return (*values[at:at + 1], *values[:at], *values[at + 1:])


def as_tuple(result: Any) -> tuple:
    """The values that a function returns; a list of arrays of one shape is one of them."""
    is_many = isinstance(result, tuple) or (isinstance(result, list) and not is_output(result))
    return tuple(result) if is_many else (result,)


def in_dicts(result: Any) -> Any:
    """What a backward returns, with a dict in place of an object that has its gradients as attributes, and of pairs of
    a name and a gradient."""
    if isinstance(result, Iterator):
        result = list(result)
    if isinstance(result, (tuple, list)) and result and all(
            isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) for one in result):
        return dict(result)
    if isinstance(result, (tuple, list)):
        parts = [in_dicts(one) for one in result]
        return dict(zip(result._fields, parts)) if hasattr(result, "_fields") else type(result)(parts)
    is_own = type(result).__module__ == "minigrad_user" and not isinstance(result, (np.ndarray, dict))
    return attributes(result) if is_own else result


def is_output(y: Any) -> bool:
    """Whether y is an array, a number, or an array for each step."""
    if isinstance(y, (list, dict)) and y and all(isinstance(key, int) for key in (y if isinstance(y, dict) else ())):
        steps = list(y.values()) if isinstance(y, dict) else y
        return all(isinstance(one, (np.ndarray, Tensor)) and np.shape(one) == np.shape(steps[-1]) for one in steps)
    return isinstance(y, (np.ndarray, Tensor, float, np.number))


def is_nest(y: Any) -> bool:
    """Whether y is several outputs in a tuple, or in a list for each layer."""
    return isinstance(y, (tuple, list)) and not is_output(y) and bool(y) and all(
        is_output(one) or is_nest(one) for one in y)


def is_group(d: Any) -> bool:
    """Whether d is several gradients, and not one for each step."""
    return isinstance(d, (dict, list, tuple)) and not is_output(d) and any(
        isinstance(one, (np.ndarray, dict)) or is_group(one) for one in (d.values() if isinstance(d, dict) else d))


def stacked(y: Any) -> Any:
    """One array of an output for each step; of a dict those from step 0 on."""
    if isinstance(y, dict):
        y = [y[t] for t in sorted(y) if t >= 0]
    return np.stack(y) if isinstance(y, list) else y


def apart(y: Any) -> list[Any]:
    """The arrays of an output."""
    return [one for part in y for one in apart(part)] if is_nest(y) else [stacked(y)]


def like(y: Any, arriving: Iterator[np.ndarray]) -> Any:
    """The gradients that arrive next, nested like their output."""
    if is_nest(y):
        parts = [like(part, arriving) for part in y]
        return type(y)(*parts) if hasattr(y, "_fields") else type(y)(parts)
    d = next(arriving)
    if isinstance(y, dict):
        return dict(zip((t for t in sorted(y) if t >= 0), d))
    return list(d) if isinstance(y, list) else d


def reset(one: Any, names: str) -> None:
    """Call the methods of an object with such names that need no arguments."""
    for name in dir(one):
        if re.match(names, name) and callable(f := getattr(one, name)) and all(
                p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
                for p in inspect.signature(f).parameters.values()):
            f()


def put_weights(root: Any, inputs: dict[str, Any], called: str = "", further: tuple[Path, ...] = ()) -> None:
    """Give the weights that an object keeps these values, each an array of its own."""
    for name, ones in weights_of(root, called, further).items():
        if name in inputs:
            W = copied(inputs[name])
            for place in ones:
                place.put(W)
