"""What every recipe promises, over every registered one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitfront.errors import ExportError
from bitfront.quant.suitability import takes
from bitfront.recipes import RECIPES, Recipe
from bitfront.recipes.base import patterns
from bitfront.types import Layer, Scheme
from tests.property.test_grammars import schemes
from tests.recipereaders import CLASSES, read

KEEP = Scheme.parse("keep")
KINDS = tuple(CLASSES)
ODD = [
    "layers.1", "layers.10", "layers.1.mlp", "layers.11.mlp", "layers.1xmlp", "xlayers.1",
    "a[0].b", "a*.b", "a?.b", "ab.b", "a+b.c", "aab.c", "$.^", "(a|b).c", "a.c", "\\d.x",
    "1.x", "re:a", "re:.*", "_default", "Linear", "Module", "*", "", "a.", "é.ü", "1", "😀.\x85",
    "a b.c-d",
]  # fmt: skip

parts = st.text("ab01[]*?+$^|(){}\\-:# é", min_size=1, max_size=4) | st.sampled_from(["1", "10"])
names = st.lists(parts, min_size=1, max_size=4).map(".".join)
layers = st.builds(
    Layer,
    st.just("a.b"),
    st.sampled_from(KINDS),
    st.sampled_from([8, 32, 64]),
    st.sampled_from([32, 48, 64, 1024]),
    st.sampled_from(["float32", "bfloat16", "float16"]),
    role=st.sampled_from(["body", "head"]),
    attention=st.sampled_from(["", "key"]),
)
small = st.sampled_from([None, 1, 16, 32, 64, 128])


def fitted(pair: tuple[Scheme, int | None]) -> Scheme:
    """The scheme with another group size, if it is one that may have any."""
    scheme, group = pair
    activation = scheme.activation
    fixed = activation is not None and (activation.group is not None or activation.output)
    return scheme if scheme.format != "int" or fixed else replace(scheme, group=group)


fitting = st.tuples(schemes, small).map(fitted)


@pytest.fixture(params=list(RECIPES))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


def linear(name: str) -> Layer:
    return Layer(name, "linear", 64, 64)


def said(recipe: Recipe, text: str, layer: Layer) -> str | None:
    return read(recipe.name, text, layer.name, layer.kind)


@pytest.mark.parametrize("name", RECIPES)
@given(layers, schemes | fitting)
def test_every_scheme_is_mapped_exactly_or_refused(name: str, layer: Layer, scheme: Scheme) -> None:
    check(RECIPES[name], layer, scheme)


@pytest.mark.parametrize("kind", KINDS)
def test_usual_schemes_of_each_kind_of_layer(recipe: Recipe, kind: str) -> None:
    """All combinations: random ones are mostly refused."""
    words = itertools.product(
        ("w2", "w3", "w4", "w6", "w8"), ("", "g16", "g32"), ("", "z"), ("", "a8", "a8s", "a4"),
        ("", "+gptq", "+gptq:act"),
    )  # fmt: skip
    for scheme in [
        *map("".join, words),
        "w4g32a8g",
        "bf16",
        "fp8",
        "mxfp4",
        "nvfp4",
        "mxfp8",
        "fp8a8",
    ]:
        check(recipe, Layer("a.b", kind, 64, 64), Scheme.parse(scheme))


def check(recipe: Recipe, layer: Layer, scheme: Scheme) -> None:
    """``scheme`` is refused with a reason, or what the tool reads is ``scheme``."""
    reason = recipe.reason(layer, scheme)
    pairs = {"a.b": scheme, "other.c": Scheme.parse("w8")}
    both = [layer, linear("other.c")]
    if reason is not None:
        assert reason.strip()
        with pytest.raises(ExportError) as error:
            recipe.text(both, pairs)
        assert f"'a.b' as {scheme}: {reason}" in str(error.value)
        return
    text = recipe.text(both, pairs)
    stays = scheme == KEEP or (scheme.format, layer.dtype) in {
        ("bf16", "bfloat16"), ("fp16", "float16"),
    }  # fmt: skip
    assert said(recipe, text, layer) == (None if stays else str(scheme))
    assert said(recipe, text, linear("other.c")) == "w8"
    assert stays or takes(layer, scheme) is None


@pytest.mark.parametrize("name", RECIPES)
@given(st.lists(names, unique=True, max_size=12), st.integers(0, 2**16))
@example(ODD, 0)
@example(ODD, 7)
def test_a_recipe_means_its_layers_and_no_others(name: str, found: list[str], seed: int) -> None:
    recipe = RECIPES[name]
    candidates = [Scheme.parse(text) for text in ("w4g32", "w8", "keep")]
    chosen = {n: candidates[(seed + i * 7) % 3] for i, n in enumerate(["one.more", *found])}
    chosen = {n: s for n, s in chosen.items() if n != "one.more"} | {"one.more": candidates[0]}
    text = recipe.text([linear(n) for n in chosen], chosen)
    for layer, scheme in chosen.items():
        expected = None if scheme == KEEP else str(scheme)
        assert read(recipe.name, text, layer, "linear") == expected, (layer, text)


@given(st.lists(names, unique=True), st.lists(names | st.sampled_from(ODD)))
def test_patterns_match_the_names_and_nothing_else(wanted: list[str], others: list[str]) -> None:
    found = patterns(wanted)
    assert sorted(name for members in found.values() for name in members) == sorted(wanted)
    for name in [*wanted, *others]:
        matching = [p for p in found if re.fullmatch(p, name)]
        assert matching == [p for p, members in found.items() if name in members]


def test_names_that_differ_in_a_number_share_a_pattern() -> None:
    assert patterns(["a.1.b", "a.10.b", "a.2.c", "x"]) == {
        "x": ["x"],
        r"a\.(?:1|10)\.b": ["a.1.b", "a.10.b"],
        r"a\.2\.c": ["a.2.c"],
    }


def test_layers_without_a_scheme_are_kept(recipe: Recipe) -> None:
    text = recipe.text([linear("a.b"), linear("a.c")], {"a.c": Scheme.parse("w4")})
    assert read(recipe.name, text, "a.b", "linear") is None
    assert read(recipe.name, text, "a.c", "linear") == "w4"


def test_all_that_is_refused_is_named(recipe: Recipe) -> None:
    found = [Layer(f"conv.{i}", "conv_transpose2d", 8, 32) for i in range(5)]
    pairs = {layer.name: Scheme.parse("w4") for layer in found} | {"a.b": Scheme.parse("w4g5")}
    with pytest.raises(ExportError) as error:
        recipe.text([*found, linear("a.b")], pairs)
    line = str(error.value)
    assert line.startswith(f"{recipe.name} cannot take 'conv.0', 'conv.1', 'conv.2' and 2 more as")
    assert "; 'a.b' as w4g5: group size 5 does not divide 64 inputs: choose another trial" in line


def test_a_tied_weight_stays_in_one_piece(recipe: Recipe) -> None:
    head = Layer("head", "linear", 64, 64, role="head", shares="words")
    assert "tied to 'words'" in str(recipe.reason(head, Scheme.parse("w8")))
    assert recipe.reason(head, KEEP) is None


def test_nothing_to_do_and_unknown_layers_are_errors(recipe: Recipe) -> None:
    w4, kept = Scheme.parse("w4"), f"a recipe for {recipe.name} of an allocation that keeps every"
    for schemes_ in ({}, {"a.b": KEEP}, {"a.b": Scheme.parse("bf16")}):
        layer = replace(linear("a.b"), dtype="bfloat16")
        with pytest.raises(ExportError, match=kept):
            recipe.text([layer], schemes_)
    with pytest.raises(ExportError, match="a scheme for 'b': the model has no such layer"):
        recipe.text([linear("a.b")], {"a.b": w4, "b": w4})


def test_where_it_is_from_is_said_and_changes_nothing(recipe: Recipe) -> None:
    about = {"study": "a: b\n- c #", "trial": 7, "kl\nx: y": 0.5, "é": "\x85"}
    found: Sequence[Layer] = [linear("a.b")]
    text = recipe.text(found, {"a.b": Scheme.parse("w4")}, about)
    assert read(recipe.name, text, "a.b", "linear") == "w4"
    assert text.isascii()
    assert "7" in text
    assert "a: b" in text
    assert text == recipe.text(found, {"a.b": Scheme.parse("w4")}, about)
