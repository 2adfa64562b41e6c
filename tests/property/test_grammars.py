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
    FLOAT_GROUPS,
    FLOAT_STATIC,
    QUANTIZERS,
    WEIGHT_BITS,
    Activation,
    Scheme,
)

groups = st.integers(1, 10**6)


def grids(group: int | None) -> st.SearchStrategy[Scheme]:
    """Integer schemes with weights in groups of this size."""
    own = st.just(group) if group is not None else st.none()
    bits, no = st.sampled_from(ACTIVATION_BITS), st.none()
    static = st.builds(Activation, bits, st.just(True), st.booleans(), no, st.booleans())
    activations = static | st.builds(Activation, bits, st.just(False), st.booleans(), no | own)
    if group is None:
        rounded = st.builds(
            Activation, bits, st.just(True), st.just(False), no, st.booleans(), st.just(True)
        )
        return _integers(own, no | activations, st.none() | st.sampled_from(CACHE_BITS)) | (
            _integers(own, rounded, no)
        )
    return _integers(own, no | activations, st.none() | st.sampled_from(CACHE_BITS))


def _integers(
    group: st.SearchStrategy[int | None],
    activation: st.SearchStrategy[Activation | None],
    cache: st.SearchStrategy[int | None],
) -> st.SearchStrategy[Scheme]:
    return st.builds(
        Scheme,
        st.just("int"),
        st.sampled_from(WEIGHT_BITS),
        group,
        st.booleans(),
        activation,
        st.sampled_from(QUANTIZERS),
        cache,
    )


integers = (st.none() | groups).flatmap(grids)
inputs = [
    Activation(FLOAT_BITS[name], static, group=FLOAT_GROUPS.get(name), format=name)
    for name, known in FLOAT_STATIC.items()
    for static in known
]
named = st.sampled_from(
    [Scheme.parse(name) for name in ("keep", *FLOAT_BITS, *BLOCK_BITS)]
    + [Scheme(a.format, a.bits, a.group, activation=a) for a in inputs]
)
schemes = integers | named
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
near = st.text("wgzao0123456789+:%.KMGiBbpwe sfrtnqc<>=@[]", max_size=12)


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
