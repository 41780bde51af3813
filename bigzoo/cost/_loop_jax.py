"""How often a `while` of JAX runs, as its jaxprs tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any


def steps_of(eqn: Any, given: list[int | None]) -> int | None:
    """How often a loop runs, from `counter < limit` with a counter that grows by a constant.

    `given` are the values of the loop's inputs, None where only the data tell. The loop ends with
    the first of several tests; a test that isn't understood may end it earlier still.
    """
    skipped, consts = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    condition, body = eqn.params["cond_jaxpr"].jaxpr, eqn.params["body_jaxpr"].jaxpr
    carried = given[skipped + consts :]
    at_test = _known(condition, [*given[:skipped], *[None] * len(carried)])
    at_step = _known(body, [*given[skipped : skipped + consts], *[None] * len(carried)])
    bounds = []
    for counter, limit in _tests(condition):
        place = _place(condition.invars[skipped:], counter)
        end = _number(limit, at_test)
        start = None if place is None else carried[place]
        if place is None or start is None or end is None:
            continue
        step = _increment(body, place, consts, at_step)
        if step and step > 0:
            bounds.append(max(0, math.ceil((end - start) / step)))
    return min(bounds) if bounds else None


def _known(jaxpr: Any, given: list[int | None]) -> dict[int, int]:
    """The numbers that a jaxpr is given from outside: id of the variable -> value."""
    pairs = zip(jaxpr.invars, given, strict=True)
    return {id(variable): number for variable, number in pairs if number is not None}


def literal(atom: Any) -> int | None:
    """The value of a whole number that the jaxpr spells out; None for anything else."""
    if not hasattr(atom, "val") or atom.aval.shape:
        return None
    return int(atom.val) if str(atom.aval.dtype).startswith(("int", "uint")) else None


def _number(atom: Any, known: dict[int, int]) -> int | None:
    return literal(atom) if hasattr(atom, "val") else known.get(id(atom))


def _tests(condition: Any) -> Iterator[tuple[Any, Any]]:
    """(counter, limit) of each comparison that the condition needs to be true."""
    makers = {id(variable): eqn for eqn in condition.eqns for variable in eqn.outvars}
    waiting = list(condition.outvars)
    while waiting:
        eqn = makers.get(id(waiting.pop()))
        if eqn is None:
            continue
        if eqn.primitive.name in ("and", "convert_element_type"):
            waiting += eqn.invars
        elif eqn.primitive.name == "lt":
            yield eqn.invars[0], eqn.invars[1]


def _place(variables: list[Any], wanted: Any) -> int | None:
    found = [i for i, variable in enumerate(variables) if variable is wanted]
    return found[0] if found else None


def _increment(body: Any, place: int, consts: int, known: dict[int, int]) -> int | None:
    """By how much a step of the body changes the counter; None for anything but an addition."""
    counter, result = body.invars[consts + place], body.outvars[place]
    for eqn in body.eqns:
        if eqn.primitive.name == "add" and eqn.outvars[0] is result:
            one, other = eqn.invars
            if other is counter:
                one, other = other, one
            return _number(other, known) if one is counter else None
    return None
