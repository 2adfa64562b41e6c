"""Values that cross a room's border: frozen, and refused when they do not hold together."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from bitfront.errors import BitfrontError, Infeasible, ProblemError, UnknownName
from bitfront.registry import Registry
from bitfront.types import Allocation, Costs, Problem, Sensitivities, Trial, closure, content_key

LAYERS, SCHEMES = ("a", "b"), ("w4", "w8", "keep")
TABLE = np.arange(6.0).reshape(2, 3)


def problem(**changes: Any) -> Problem:
    parts: dict[str, Any] = {
        "layers": LAYERS,
        "schemes": SCHEMES,
        "loss": TABLE,
        "costs": {"bytes": TABLE * 10},
        "limits": {"bytes": 60},
    }
    return Problem(**{**parts, **changes})


def test_tables_are_copied_and_read_only() -> None:
    given = TABLE.copy()
    p = problem(loss=given, costs={"bytes": given})
    given[0, 0] = 99.0
    assert p.loss[0, 0] == p.costs["bytes"][0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        p.loss[0, 0] = 1.0
    with pytest.raises(TypeError):
        p.costs["bytes"] = given  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.layers = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"layers": ()}, "a problem of 0 layers and 3 schemes"),
        ({"loss": TABLE.T}, r"loss has shape \(3, 2\): expected \(2, 3\)"),
        ({"allowed": np.ones((1, 3))}, r"allowed has shape \(1, 3\)"),
        ({"allowed": np.ones((3, 2))}, r"allowed has shape \(3, 2\)"),
        ({"costs": {"bytes": TABLE[0]}}, r"costs of bytes has shape \(3,\)"),
        ({"loss": TABLE * math.nan}, "loss of layer 'a' under 'w4' is nan"),
        ({"costs": {"bytes": TABLE + math.inf}}, "costs of bytes of layer 'a' under 'w4' is inf"),
        ({"limits": {"bops": 1.0}}, "a limit on 'bops': the problem has bytes"),
        ({"limits": {"bytes": math.nan}}, "the limit on bytes is nan"),
        ({"groups": ((0, 2),)}, "layer index 2 in group"),
        ({"groups": ((0,), (0, 1))}, "layer index 0 in group"),
        ({"groups": ((-1,),)}, "layer index -1 in group"),
    ],
)
def test_problems_that_do_not_hold_together(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ProblemError, match=line):
        problem(**changes)


def test_barred_entries_may_be_anything() -> None:
    loss = TABLE.copy()
    loss[1, 2] = math.nan
    allowed = np.ones((2, 3), dtype=bool)
    allowed[1, 2] = False
    assert problem(loss=loss, allowed=allowed).allowed is not None


def test_totals_add_the_fixed_part() -> None:
    p = problem(fixed={"bytes": 7.0})
    assert p.totals([0, 2]) == {"bytes": 0.0 + 50.0 + 7.0}
    costs = Costs(LAYERS, SCHEMES, {"bytes": TABLE}, {"bytes": 1.0}, {"bytes": 9.0}, 5)
    assert costs.total({"b": "keep", "a": "w8"}) == {"bytes": 1.0 + 5.0 + 1.0}


def test_sensitivities_are_looked_up_by_name() -> None:
    table = Sensitivities("kl", LAYERS, SCHEMES, TABLE, TABLE, 8)
    assert table.at("b", "w8") == 4.0
    with pytest.raises(ValueError, match="not in tuple"):
        table.at("c", "w8")
    with pytest.raises(ProblemError, match="stderr has shape"):
        Sensitivities("kl", LAYERS, SCHEMES, TABLE, TABLE[:1], 8)
    with pytest.raises(ProblemError, match="costs of bytes have shape"):
        Costs(LAYERS, SCHEMES, {"bytes": TABLE[:1]}, {}, {}, 1)


def test_allocations_and_trials_name_their_schemes() -> None:
    a = Allocation(LAYERS, ("w4", "keep"), 1.0, {}, 1.0, 0.0, True, 0.0, "ilp")
    assert a.schemes == {"a": "w4", "b": "keep"}
    one = Trial({"a": "w4", "b": "keep"}, "ilp", 0.0, 0.0, {}, {}, 0.0)
    two = Trial({"b": "keep", "a": "w4"}, "greedy", 1.0, 1.0, {}, {}, 1.0)
    other = Trial({"b": "w4", "a": "keep"}, "ilp", 0.0, 0.0, {}, {}, 0.0)
    assert one.key == two.key != other.key


def test_content_keys_do_not_depend_on_order_of_keys() -> None:
    assert content_key({"a": 1, "b": [1, 2]}) == content_key({"b": [1, 2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 1.5})
    assert content_key([1, 2]) != content_key([2, 1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_key({"a": math.nan})


@pytest.mark.parametrize(
    ("pairs", "groups"),
    [
        ([], ()),
        ([(3, 1)], ((1, 3),)),
        ([(0, 1), (2, 3), (1, 2)], ((0, 1, 2, 3),)),
        ([(4, 5), (0, 1), (5, 6)], ((0, 1), (4, 5, 6))),
    ],
)
def test_closure_joins_what_overlaps(
    pairs: list[tuple[int, ...]], groups: tuple[tuple[int, ...], ...]
) -> None:
    assert closure(pairs) == groups


def test_errors_say_what_and_remedy_in_one_line() -> None:
    assert str(UnknownName("no x", "use y")) == "no x: use y"
    assert str(UnknownName("no x")) == "no x"
    assert isinstance(UnknownName("x"), LookupError)
    assert isinstance(UnknownName("x"), BitfrontError)
    assert Infeasible("x", binding={"bytes": (1.0, 2.0)}).binding == {"bytes": (1.0, 2.0)}
    assert Infeasible("x").binding == {}


def test_a_registry_miss_lists_the_names() -> None:
    things: Registry[int] = Registry("thing")
    things.register("one")(1)
    things.register("two")(2)
    assert list(things) == ["one", "two"]
    with pytest.raises(UnknownName, match="no thing named 'three': choose from one, two"):
        things["three"]
