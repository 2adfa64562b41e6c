"""The spellings of schemes and budgets: what is read, what is refused, and with which line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bitfront.budget import Budget
from bitfront.errors import BudgetError, SchemeError
from bitfront.scheme import Activation, Scheme, parse_schemes

SCHEMES = {
    "w4": Scheme("int", 4),
    "w4g128": Scheme("int", 4, group=128),
    "w8a8": Scheme("int", 8, activation=Activation(8)),
    "w8a8s": Scheme("int", 8, activation=Activation(8, static=True)),
    "w8a8b": Scheme("int", 8, activation=Activation(8, bos=True)),
    "w8a8sb": Scheme("int", 8, activation=Activation(8, static=True, bos=True)),
    "w8a8sz": Scheme("int", 8, activation=Activation(8, static=True, symmetric=False)),
    "w8a8szb": Scheme("int", 8, activation=Activation(8, True, True, symmetric=False)),
    "w3za6so": Scheme("int", 3, None, False, Activation(6, static=True, output=True)),
    "w8a8szo+gptq": Scheme(
        "int", 8, None, True, Activation(8, static=True, symmetric=False, output=True), "gptq"
    ),
    "w4g32a8g": Scheme("int", 4, 32, activation=Activation(8, group=32)),
    "w2g16za4gbkv8+gptq": Scheme("int", 2, 16, False, Activation(4, bos=True, group=16), "gptq", 8),
    "w4kv8": Scheme("int", 4, cache=8),
    "w4g32za8sbkv4+gptq": Scheme(
        "int", 4, 32, False, Activation(8, static=True, bos=True), "gptq", 4
    ),
    "w2g32z": Scheme("int", 2, group=32, symmetric=False),
    "w3g64+gptq": Scheme("int", 3, group=64, quantizer="gptq"),
    "w5g1za6s+gptq:act": Scheme("int", 5, 1, False, Activation(6, True), "gptq:act"),
    "w5g1za6sb+gptq:act": Scheme("int", 5, 1, False, Activation(6, True, True), "gptq:act"),
}


@pytest.mark.parametrize(("text", "scheme"), SCHEMES.items())
def test_schemes_are_read_and_written(text: str, scheme: Scheme) -> None:
    assert Scheme.parse(text) == scheme
    assert str(scheme) == text


@pytest.mark.parametrize(
    ("text", "bits", "group"),
    [
        ("keep", 0, None),
        ("bf16", 16, None),
        ("fp16", 16, None),
        ("fp8", 8, None),
        ("mxfp8", 8, 32),
        ("mxfp4", 4, 32),
        ("nvfp4", 4, 16),
        ("q8_0", 8, 32),
        ("q6_k", 6, 256),
        ("q5_k", 5, 256),
        ("q5_0", 5, 32),
        ("q5_1", 5, 32),
        ("q4_k", 4, 256),
        ("q4_0", 4, 32),
        ("q4_1", 4, 32),
        ("q3_k", 3, 256),
        ("q2_k", 2, 256),
    ],
)
def test_floats_and_blocks_know_their_width(text: str, bits: int, group: int | None) -> None:
    scheme = Scheme.parse(text)
    assert (scheme.format, scheme.bits, scheme.group, str(scheme)) == (text, bits, group, text)
    assert Scheme.parse(text) == scheme


@pytest.mark.parametrize(
    ("text", "weights", "activation"),
    [
        ("fp8a8", "fp8", Activation(8, format="fp8")),
        ("fp8a8s", "fp8", Activation(8, static=True, format="fp8")),
        ("nvfp4a4", "nvfp4", Activation(4, static=True, group=16, format="nvfp4")),
        ("mxfp4a4", "mxfp4", Activation(4, group=32, format="mxfp4")),
        ("mxfp8a8", "mxfp8", Activation(8, group=32, format="mxfp8")),
    ],
)
def test_floats_round_inputs_to_their_own_format(
    text: str, weights: str, activation: Activation
) -> None:
    scheme = Scheme.parse(text)
    plain = Scheme.parse(weights)
    assert (scheme.format, scheme.activation, str(scheme)) == (weights, activation, text)
    assert (scheme.bits, scheme.group) == (plain.bits, plain.group)
    assert scheme != plain
    assert Scheme(scheme.format, scheme.bits, scheme.group, activation=activation) == scheme


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Activation(8, static=True, group=32), "static activations in groups"),
        (lambda: Scheme("int", 4, 32, activation=Activation(8, group=16)), "other groups than"),
        (lambda: Scheme("int", 4, activation=Activation(8, group=16)), "other groups than"),
    ],
)
def test_activations_have_no_groups_of_their_own(make: Callable[[], object], line: str) -> None:
    with pytest.raises(SchemeError, match=line):
        make()


def test_case_space_and_the_default_quantizer_are_not_spelled() -> None:
    assert str(Scheme.parse(" W4G128Z ")) == "w4g128z"
    assert str(Scheme.parse("w4+rtn")) == "w4"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "unknown scheme '': spell it like"),
        ("int4", "unknown scheme 'int4'"),
        ("w", "unknown scheme 'w'"),
        ("w4 g32", "unknown scheme 'w4 g32'"),
        ("w4z32", "unknown scheme 'w4z32'"),
        ("bf16a8", "unknown scheme 'bf16a8'"),
        ("fp8a4", "unknown scheme 'fp8a4'"),
        ("fp8a8b", "unknown scheme 'fp8a8b'"),
        ("nvfp4a8", "unknown scheme 'nvfp4a8'"),
        ("mxfp4a4s", "unknown scheme 'mxfp4a4s'"),
        ("w4g", "unknown scheme 'w4g'"),
        ("w4s", "unknown scheme 'w4s'"),
        ("w4b", "unknown scheme 'w4b'"),
        ("w8a8bs", "unknown scheme 'w8a8bs'"),
        ("w8g32a8sg", "unknown scheme 'w8g32a8sg'"),
        ("w8a8soz", "unknown scheme 'w8a8soz'"),
        ("w8a8zs", "unknown scheme 'w8a8zs'"),
        ("w8a8z", "scheme 'w8a8z': a zero point of activations whose range is not static: spell"),
        ("w8g8a8gz", "scheme 'w8g8a8gz': a zero point of activations whose range is not static"),
        ("w8a8o", "scheme 'w8a8o': outputs rounded where the range of inputs is not static"),
        ("w8g8a8go", "scheme 'w8g8a8go': outputs rounded where the range of inputs is not"),
        ("w8a8sob", "scheme 'w8a8sob': outputs rounded where a first token stays as it is"),
        ("w8a8szokv8", "scheme 'w8a8szokv8': a cache of an output that is rounded already"),
        ("w4g32a8so", "scheme 'w4g32a8so': rounded outputs of weights in groups"),
        ("w8a8g", "scheme 'w8a8g': activations in groups, and weights in none: spell it like"),
        ("w8a8g32", "unknown scheme 'w8a8g32'"),
        ("w-4", "unknown scheme 'w-4'"),
        ("w1", "scheme 'w1': integer weights of 1 bits: use one of 2, 3, 4, 5, 6, 7, 8"),
        ("w16", "scheme 'w16': integer weights of 16 bits"),
        ("w4g0", "scheme 'w4g0': group size 0: use a positive group size"),
        ("w4a16", "scheme 'w4a16': activations of 16 bits: use one of 4, 6, 8"),
        ("w4kv", "unknown scheme 'w4kv'"),
        ("w4kv8a8", "unknown scheme 'w4kv8a8'"),
        ("kv8", "unknown scheme 'kv8'"),
        ("w4kv2", "scheme 'w4kv2': a cache of 2 bits: use one of 4, 6, 8"),
        ("w4+awq", "scheme 'w4.awq': quantizer 'awq': use one of rtn, gptq, gptq:act"),
    ],
)
def test_misspelled_schemes(text: str, line: str) -> None:
    with pytest.raises(SchemeError, match=f"^{line}"):
        Scheme.parse(text)


def test_floats_take_no_options() -> None:
    with pytest.raises(SchemeError, match="bf16 with options of integer schemes"):
        Scheme("bf16", 16, quantizer="gptq")
    with pytest.raises(SchemeError, match="unknown scheme 'int5'"):
        Scheme("int5")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Activation(8, format="fp16"), "activations in fp16 with options"),
        (lambda: Activation(4, format="fp8"), "activations in fp8 with options"),
        (lambda: Activation(8, bos=True, format="fp8"), "activations in fp8 with options"),
        (lambda: Activation(4, group=16, format="nvfp4"), "activations in nvfp4 with options"),
        (lambda: Scheme("fp8", 8, activation=Activation(8)), "fp8 with activations of another"),
        (
            lambda: Scheme("int", 8, activation=Activation(8, format="fp8")),
            "float activations of integer weights",
        ),
    ],
)
def test_float_activations_have_no_options(make: Callable[[], object], line: str) -> None:
    with pytest.raises(SchemeError, match=line):
        make()


def test_lists_of_schemes() -> None:
    w4, w8, keep = map(Scheme.parse, ("w4", "w8", "keep"))
    assert parse_schemes("w4 w8,keep") == parse_schemes(["w4", w8, "keep", "W4"]) == (w4, w8, keep)
    nothings: tuple[str | list[str], ...] = ("", " , ", [])
    for nothing in nothings:
        with pytest.raises(SchemeError, match="no schemes were given"):
            parse_schemes(nothing)


FULL = {
    "bytes": 1000.0,
    "bits": 32000.0,
    "stored_bits": 32000.0,
    "bops": 5e9,
    "seconds": 2.0,
    "kv": 64.0,
}


@pytest.mark.parametrize(
    ("text", "resource", "limit"),
    [
        ("700MB", "bytes", 700e6),
        ("700 mb", "bytes", 700e6),
        ("1.5KiB", "bytes", 1536.0),
        ("2GiB", "bytes", 2.0 * 2**30),
        ("1TB", "bytes", 1e12),
        ("12B", "bytes", 12.0),
        ("40%", "bytes", 400.0),
        ("3.5bpw", "bits", 3.5 * 250),
        ("4.25ebpw", "stored_bits", 4.25 * 250),
        ("8GBOPs", "bops", 8e9),
        ("1e3bops", "bops", 1e3),
        ("50%BOPs", "bops", 2.5e9),
        ("2KiBkv", "kv", 2048.0),
        ("50%kv", "kv", 32.0),
        ("12ms", "seconds", 0.012),
        ("3us", "seconds", 3e-6),
        (".5s", "seconds", 0.5),
    ],
)
def test_budgets_limit_their_resource(text: str, resource: str, limit: float) -> None:
    budget = Budget.parse(text)
    assert budget.resource == resource
    assert budget.limit(FULL, weights=250) == pytest.approx(limit, rel=1e-15)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "cannot read budget ''"),
        ("MB", "cannot read budget 'MB'"),
        ("-3bpw", "cannot read budget '-3bpw'"),
        ("3,5bpw", "cannot read budget '3,5bpw'"),
        ("nanMB", "cannot read budget 'nanMB'"),
        ("700", "unknown unit in budget '700'"),
        ("700MO", "unknown unit in budget '700MO'"),
        ("40%s", "unknown unit in budget '40%s'"),
        ("0MB", "budget '0MB' is not a positive number"),
        ("1e999MB", "cannot read budget '1e999MB'"),
    ],
)
def test_misspelled_budgets(text: str, line: str) -> None:
    with pytest.raises(BudgetError, match=f"^{line}: write a number and a unit"):
        Budget.parse(text)


def test_a_budget_on_what_is_not_counted_says_what_is() -> None:
    with pytest.raises(BudgetError, match="limits seconds, which is not counted here: choose"):
        Budget.parse("12ms").limit({"bytes": 1.0, "bits": 1.0}, weights=1)
