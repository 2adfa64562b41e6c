"""Every scheme and budget is read back from its spelling; no text gives any other error."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from bitfront.budget import _UNITS, Budget
from bitfront.errors import BudgetError, SchemeError
from bitfront.scheme import (
    ACTIVATION_BITS,
    BLOCK_BITS,
    CACHE_BITS,
    FLOAT_BITS,
    QUANTIZERS,
    WEIGHT_BITS,
    Activation,
    Scheme,
)

groups = st.integers(1, 10**6)


def grids(group: int | None) -> st.SearchStrategy[Scheme]:
    """Integer schemes with weights in groups of this size."""
    own = st.just(group) if group is not None else st.none()
    activations = st.builds(
        Activation, st.sampled_from(ACTIVATION_BITS), st.booleans(), st.booleans()
    ) | st.builds(Activation, st.sampled_from(ACTIVATION_BITS), st.just(False), st.booleans(), own)
    return st.builds(
        Scheme,
        st.just("int"),
        st.sampled_from(WEIGHT_BITS),
        own,
        st.booleans(),
        st.none() | activations,
        st.sampled_from(QUANTIZERS),
        st.none() | st.sampled_from(CACHE_BITS),
    )


integers = (st.none() | groups).flatmap(grids)
named = [Scheme.parse(name) for name in ("keep", *FLOAT_BITS, *BLOCK_BITS)]
schemes = integers | st.sampled_from(named)
amounts = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
signs, classes = st.sampled_from(["<=", ">="]), st.sampled_from(["", "mlp", "*.k_proj", "a b"])
weights = sorted(unit for unit in _UNITS if "act" not in unit)
names = st.sampled_from(["joules", "seconds@cpu:b1s128", "bytes"])
budgets = (
    st.builds(Budget, amounts, st.sampled_from(sorted(_UNITS)))
    | st.builds(Budget, amounts, st.sampled_from(weights), signs, classes)
    | st.builds(Budget, amounts, st.sampled_from(["s", "ms", "%"]), signs, classes, st.just("c:1"))
    | st.builds(Budget, amounts, st.just(""), signs, classes, st.just(""), names)
)
near = st.text("wgza0123456789+:%.KMGiBbpwe sfrtnqc<>=@[]", max_size=12)


@given(schemes)
def test_schemes_round_trip(scheme: Scheme) -> None:
    again = Scheme.parse(str(scheme))
    assert again == scheme
    assert hash(again) == hash(scheme)
    assert str(again) == str(scheme)
    assert Scheme.parse(f" {str(scheme).upper()}\n") == scheme


@given(schemes, schemes)
def test_different_schemes_are_spelled_differently(a: Scheme, b: Scheme) -> None:
    assert (a == b) == (str(a) == str(b))


@given(budgets)
def test_budgets_round_trip(budget: Budget) -> None:
    again = Budget.parse(str(budget))
    assert again == budget
    assert str(again) == str(budget)


@given(st.text() | near)
def test_no_text_gives_another_error(text: str) -> None:
    with contextlib.suppress(SchemeError):
        assert Scheme.parse(str(Scheme.parse(text))) == Scheme.parse(text)
    with contextlib.suppress(BudgetError):
        assert Budget.parse(str(Budget.parse(text))) == Budget.parse(text)
