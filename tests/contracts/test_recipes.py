"""What every recipe promises, over every registered one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitfront.errors import ExportError
from bitfront.quant.suitability import takes
from bitfront.recipes import RECIPES, Recipe
from bitfront.recipes.base import patterns
from bitfront.scheme import BLOCK_BITS
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

# names of two layers that a tool knows, and a scheme that it makes of them; any name for the others
KNOWN = {"llama-quantize": ("model.layers.1.mlp.up_proj", "model.layers.10.mlp.up_proj", "q4_0")}
ANY = ("a.b", "other.c", "w8")

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
        *map("".join, words), "w4g32a8g", "bf16", "fp8", "mxfp4", "nvfp4", "mxfp8", "fp8a8",
        *BLOCK_BITS,
    ]:  # fmt: skip
        for cols in (64, 256):
            check(recipe, Layer("a.b", kind, 64, cols), Scheme.parse(scheme))


def check(recipe: Recipe, layer: Layer, scheme: Scheme) -> None:
    """``scheme`` is refused with a reason, or what the tool reads is ``scheme``."""
    name, other, plain = KNOWN.get(recipe.name, ANY)
    layer = replace(layer, name=name)
    reason = recipe.reason(layer, scheme)
    pairs = {name: scheme, other: Scheme.parse(plain)}
    both = [layer, linear(other)]
    if reason is not None:
        assert reason.strip()
        with pytest.raises(ExportError) as error:
            recipe.text(both, pairs)
        assert f"'{name}' as {scheme}: {reason}" in str(error.value)
        return
    text = recipe.text(both, pairs)
    stays = scheme == KEEP or (scheme.format, layer.dtype) in {
        ("bf16", "bfloat16"), ("fp16", "float16"),
    }  # fmt: skip
    found = said(recipe, text, layer)
    if stays and recipe.name == "llama-quantize":  # which asks for the dtype that a layer has
        assert found == {"bfloat16": "bf16", "float16": "fp16"}.get(layer.dtype)
    else:
        assert found == (None if stays else str(scheme))
    assert said(recipe, text, linear(other)) == plain
    assert stays or takes(layer, scheme) is None


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in KNOWN])
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
    name, other, plain = KNOWN.get(recipe.name, ANY)
    text = recipe.text([linear(name), linear(other)], {other: Scheme.parse(plain)})
    assert read(recipe.name, text, name, "linear") is None
    assert read(recipe.name, text, other, "linear") == plain


def test_all_that_is_refused_is_named(recipe: Recipe) -> None:
    found = [Layer(f"conv.{i}", "conv_transpose2d", 8, 32) for i in range(5)]
    known = recipe.name in KNOWN
    name, _, plain = KNOWN.get(recipe.name, ANY)
    wrong, why = (
        ("q4_k", "blocks of 256 do not divide 64 inputs; use q8_0, q5_0, q5_1, q4_0, q4_1")
        if known
        else ("w4g5", "group size 5 does not divide 64 inputs")
    )
    found = (
        [replace(la, name=f"model.layers.{i}.mlp.up_proj") for i, la in enumerate(found)]
        if (known)
        else found
    )
    name = "lm_head" if known else name
    pairs = {layer.name: Scheme.parse(plain) for layer in found} | {name: Scheme.parse(wrong)}
    with pytest.raises(ExportError) as error:
        recipe.text([*found, linear(name)], pairs)
    line = str(error.value)
    first = ", ".join(f"'{layer.name}'" for layer in found[:3])
    assert line.startswith(f"{recipe.name} cannot take {first} and 2 more as {plain}: ")
    assert f"; '{name}' as {wrong}: {why}: choose another trial" in line


def test_a_tied_weight_stays_in_one_piece(recipe: Recipe) -> None:
    head = Layer("lm_head", "linear", 64, 64, role="head", shares="model.embed_tokens")
    if recipe.name == "llama-quantize":  # where it is no tensor of its own
        both = [Layer("model.embed_tokens", "embedding", 64, 64, role="embedding"), head]
        text = recipe.text(both, {layer.name: Scheme.parse("q8_0") for layer in both})
        assert text.count("weight$=") == 1
        assert read(recipe.name, text, "model.embed_tokens", "embedding") == "q8_0"
        return
    assert "tied to 'model.embed_tokens'" in str(recipe.reason(head, Scheme.parse("w8")))
    assert recipe.reason(head, KEEP) is None


def test_nothing_to_do_and_unknown_layers_are_errors(recipe: Recipe) -> None:
    name, _, plain = KNOWN.get(recipe.name, ANY)
    some, kept = (
        Scheme.parse(plain),
        f"a recipe for {recipe.name} of an allocation that keeps every",
    )
    for schemes_ in ({}, {name: KEEP}, {name: Scheme.parse("bf16")}):
        layer = replace(linear(name), dtype="bfloat16")
        with pytest.raises(ExportError, match=kept):
            recipe.text([layer], schemes_)
    with pytest.raises(ExportError, match="a scheme for 'b': the model has no such layer"):
        recipe.text([linear(name)], {name: some, "b": some})


def test_where_it_is_from_is_said_and_changes_nothing(recipe: Recipe) -> None:
    about = {"study": "a: b\n- c #", "trial": 7, "kl\nx: y": 0.5, "é": "\x85"}
    name, _, plain = KNOWN.get(recipe.name, ANY)
    found: Sequence[Layer] = [linear(name)]
    text = recipe.text(found, {name: Scheme.parse(plain)}, about)
    assert read(recipe.name, text, name, "linear") == plain
    assert text.isascii()
    plainly = unquote(text) if recipe.name == "llama-quantize" else text
    assert "7" in plainly
    assert "a: b" in plainly
    assert text == recipe.text(found, {name: Scheme.parse(plain)}, about)
