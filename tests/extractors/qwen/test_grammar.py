"""The grammar, read back as a regular expression; ``test_local.py`` gives it to the real server."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.errors import SchemaError
from extractors.qwen.grammar import LONGEST_STRING, compact_grammar

TOKEN = re.compile(
    r'"(?P<literal>(?:[^"\\]|\\.)*)"|(?P<set>\[(?:[^\]\\]|\\.)*\])|(?P<name>[a-z][a-z0-9-]*)|(?P<other>[|()?*+]|\{[\d,]+\})|\s+'
)


def as_regex(grammar: str, *, depth: int = 3) -> re.Pattern[str]:
    """GBNF is close to a regular expression once its rules are put in; recursion ends after ``depth`` levels."""
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines())

    def expand(name: str, seen: tuple[str, ...]) -> str:
        if seen.count(name) > depth:
            return "(?!)"
        pattern = ""
        for token in TOKEN.finditer(rules[name]):
            if token["literal"] is not None:
                text = re.sub(
                    r"\\x([0-9A-F]{2})|\\(.)", lambda m: chr(int(m[1], 16)) if m[1] else m[2], token["literal"]
                )
                pattern += f"(?:{re.escape(text)})"
            elif token["name"]:
                pattern += f"(?:{expand(token['name'], (*seen, name))})"
            else:
                pattern += token["set"] or token["other"] or ""
        assert "".join(t[0] for t in TOKEN.finditer(rules[name])) == rules[name], "the grammar has unknown syntax"
        return pattern

    return re.compile(expand("root", ()), re.DOTALL)


def accepts(schema: dict[str, Any], text: str) -> bool:
    return as_regex(compact_grammar(schema)).fullmatch(text) is not None


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def an_object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


PRODUCT = an_object(
    ["name", "availability"],
    name={"type": "string"},
    price={"anyOf": [{"type": "number"}, {"type": "null"}]},
    availability={"enum": ["in_stock", "out_of_stock"]},
    features={"type": "array", "items": {"type": "string"}},
)


def test_one_line_fits_with_and_without_spaces_and_pretty_json_does_not():
    value = {"name": "Kettle", "price": 19.5, "availability": "in_stock", "features": ["1.7 l", "auto off"]}
    assert accepts(PRODUCT, compact(value))
    assert accepts(PRODUCT, json.dumps(value))
    assert not accepts(PRODUCT, json.dumps(value, indent=1))
    assert not accepts(PRODUCT, compact(value).replace(":", ":  "))
    assert not accepts(PRODUCT, compact(value).replace(":", " :"))
    assert not accepts(PRODUCT, compact(value).replace(":", ":\n"))
    assert not accepts(PRODUCT, " " + compact(value))


@pytest.mark.parametrize(
    "schema",
    [
        PRODUCT,
        {"type": "array", "items": {"type": ["string", "null"]}},
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "string"}]},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "additionalProperties": True},
        an_object([], a={"type": "string"}, b={"type": "string"}),
    ],
)
def test_one_space_may_follow_every_colon_and_comma(schema: dict[str, Any]):
    # Where it may not, a model that is in the middle of writing ': "' is pushed into null or another branch.
    grammar = compact_grammar(schema)
    for mark in ('":"', '","'):
        assert grammar.count(mark) == grammar.count(f'{mark} " "?')


def test_properties_come_in_the_schemas_order():
    assert not accepts(PRODUCT, compact({"availability": "in_stock", "name": "Kettle"}))


@pytest.mark.parametrize("left_out", ["name", "availability"])
def test_a_required_property_cannot_be_left_out(left_out: str):
    value = {"name": "Kettle", "price": None, "availability": "in_stock"}
    del value[left_out]
    assert not accepts(PRODUCT, compact(value))


@pytest.mark.parametrize("required", [[], ["a"], ["b"], ["c"], ["a", "c"], ["a", "b", "c"]])
def test_every_choice_of_optional_properties_has_its_commas_right(required: list[str]):
    schema = an_object(required, a={"type": "boolean"}, b={"type": "null"}, c={"type": "boolean"})
    whole = {"a": True, "b": None, "c": False}
    for bits in range(8):
        value = {name: whole[name] for index, name in enumerate("abc") if bits >> index & 1}
        assert accepts(schema, compact(value)) == (set(required) <= value.keys())
    for wrong in ('{,"c":false}', '{"a":true,}', '{"a":true"b":null}', '{"a":true,,"c":false}'):
        assert not accepts(schema, wrong)


def test_objects_are_closed_unless_they_are_maps():
    assert not accepts(PRODUCT, '{"name":"a","availability":"in_stock","other":1}')
    ages = {"type": "object", "additionalProperties": {"type": "integer"}}
    assert accepts(ages, '{"Ann":3,"Zoë":-12}')
    assert accepts(ages, "{}")
    assert not accepts(ages, '{"Ann":"three"}')
    assert accepts({"type": "object"}, "{}")
    assert not accepts({"type": "object"}, '{"a":1}')


@pytest.mark.parametrize(
    ("least", "most", "fitting"),
    [
        (None, None, [0, 1, 2, 3, 4]),
        (1, None, [1, 2, 3, 4]),
        (2, 3, [2, 3]),
        (None, 2, [0, 1, 2]),
        (1, 1, [1]),
        (None, 0, [0]),
    ],
)
def test_lists_hold_as_many_items_as_they_may(least: int | None, most: int | None, fitting: list[int]):
    schema: dict[str, Any] = {"type": "array", "items": {"type": "boolean"}}
    schema |= {key: value for key, value in (("minItems", least), ("maxItems", most)) if value is not None}
    assert [n for n in range(5) if accepts(schema, compact([True] * n))] == fitting


def test_tuples_have_their_own_type_at_each_place():
    pair = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2}
    assert accepts(pair, '["a",1]')
    assert not accepts(pair, '[1,"a"]')
    assert not accepts(pair, '["a"]')


@pytest.mark.parametrize("schema", [{"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}])
def test_what_may_be_null_may_be_null(schema: dict[str, Any]):
    assert accepts(schema, "null")
    assert accepts(schema, '"a"')
    assert not accepts(schema, "1")


def test_enums_and_constants_are_written_exactly():
    schema = {"enum": ['say "hi"', "a\\b", "naïve", 3, None, "two\nlines"]}
    for value in schema["enum"]:
        assert accepts(schema, compact(value))
    assert not accepts(schema, '"naive"')
    assert accepts({"const": "x"}, '"x"')


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("integer", ["0", "-7", "1234567890123456789"], ["01", "1.5", "12345678901234567890", "+1", "1e3"]),
        ("number", ["0", "-7.25", "0.0000001", "1e-9", "45.35"], [".5", "1.", "00.5", "1" * 20, "NaN", "1,000"]),
        ("boolean", ["true", "false"], ["True", '"true"']),
    ],
)
def test_numbers_are_plain_and_end(kind: str, right: list[str], wrong: list[str]):
    assert [text for text in right if accepts({"type": kind}, text)] == right
    assert [text for text in wrong if accepts({"type": kind}, text)] == []


@pytest.mark.parametrize("bound", [{"minimum": 0}, {"exclusiveMinimum": 0}, {"minimum": 5.5}])
def test_a_number_that_cannot_be_negative_has_no_minus(bound: dict[str, Any]):
    assert accepts({"type": "number", **bound}, "7.5")
    assert not accepts({"type": "number", **bound}, "-7.5")
    assert not accepts({"type": "integer", **bound}, "-7")


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ("date", ["2018-02-07", "1999-12-31"], ["2018-13-01", "2018-02-32", "07-02-2018", "2018-2-7", ""]),
        ("time", ["03:16:00", "23:59:59.125", "12:00:00Z", "12:00:00+08:00"], ["24:00:00", "3:16", "03:16PM"]),
        ("date-time", ["2018-02-07T03:16:00", "2018-02-07T03:16:00-05:30"], ["2018-02-07", "2018-02-07 03:16:00"]),
        ("duration", ["P3D", "PT5M", "PT1H30M", "P1DT12H", "-PT2.5S"], ["P", "PT", "5 minutes", "P1DT"]),
        ("uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567", "123e4567e89b12d3a456426614174000"]),
    ],
)
def test_formats_are_held(form: str, right: list[str], wrong: list[str]):
    schema = {"type": "string", "format": form}
    assert [text for text in right if accepts(schema, compact(text))] == right
    assert [text for text in wrong if accepts(schema, compact(text))] == []


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=40))
def test_any_text_without_control_characters_can_be_written(text: str):
    readable = "".join(c for c in text if c >= " " or c in "\n\t")
    assert accepts({"type": "string"}, compact(readable))


@pytest.mark.parametrize("text", ['"a\nb"', '"a\x00b"', r'"\u0000"', r'"\ud800"', '"a\x7fb"', '"open', '"a"b"'])
def test_control_characters_and_broken_strings_cannot_be_written(text: str):
    assert not accepts({"type": "string"}, text)


def test_strings_have_an_end():
    assert accepts({"type": "string"}, '"' + "a" * LONGEST_STRING + '"')
    assert not accepts({"type": "string"}, '"' + "a" * (LONGEST_STRING + 1) + '"')
    short = {"type": "string", "minLength": 2, "maxLength": 3}
    assert [n for n in range(6) if accepts(short, compact("é" * n))] == [2, 3]


def test_a_decimal_is_a_plain_number():
    schema = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\d*\.?\d*$"}, {"type": "null"}]}
    assert accepts(schema, "45.35")
    assert not accepts(schema, '"45.35"')


def test_references_and_recursion_become_rules():
    schema = {
        "$defs": {"Node": an_object(["kids"], kids={"type": "array", "items": {"$ref": "#/$defs/Node"}})},
        "$ref": "#/$defs/Node",
    }
    assert accepts(schema, '{"kids":[{"kids":[]},{"kids":[]}]}')


def test_all_of_is_merged():
    schema = {"allOf": [an_object(["a"], a={"type": "integer"}), {"properties": {"b": {"type": "null"}}}]}
    assert accepts(schema, '{"a":1,"b":null}')
    assert not accepts(schema, '{"b":null}')


def test_anything_may_be_any_json():
    schema = {"type": "object", "additionalProperties": True}
    assert accepts(schema, '{"a":[1,"b",null,{"c":true}]}')


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "object", "properties": {"a": False}}, "no value fits"),
        ({"type": "text"}, "not a JSON Schema type"),
        ({"enum": []}, "without choices"),
        ({"$ref": "#/$defs/Gone"}, "leads nowhere"),
        ({"$ref": "https://example.org/a.json"}, "leads nowhere"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "at least 3 and at most 2"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "at least 3 and at most 2"),
    ],
)
def test_a_schema_that_no_value_fits_is_refused(schema: dict[str, Any], said: str):
    with pytest.raises(SchemaError, match=re.escape(said)):
        compact_grammar(schema)


JSON_SCALARS = st.sampled_from(
    [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": ["number", "null"]}, {"enum": ["a", 1]}]
)
SCHEMAS = st.recursive(
    JSON_SCALARS,
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items, "maxItems": 3}),
        inner.map(lambda values: {"type": "object", "additionalProperties": values}),
        st.dictionaries(st.text('abcé"\\ ', min_size=1, max_size=4), inner, min_size=1, max_size=3).map(
            lambda properties: an_object(sorted(properties)[::2], **properties)
        ),
    ),
    max_leaves=6,
)


@given(SCHEMAS, st.data())
def test_every_value_of_a_schema_fits_its_grammar(schema: dict[str, Any], data: st.DataObject):
    def draw(part: dict[str, Any]) -> Any:
        if "enum" in part:
            return data.draw(st.sampled_from(part["enum"]))
        if "properties" in part:
            kept = [name for name in part["properties"] if name in part["required"] or data.draw(st.booleans())]
            return {name: draw(part["properties"][name]) for name in kept}
        if part["type"] == "object":
            return {key: draw(part["additionalProperties"]) for key in data.draw(st.sets(st.text("xyß", min_size=1)))}
        if part["type"] == "array":
            return [draw(part["items"]) for _ in range(data.draw(st.integers(0, 3)))]
        scalar = {"string": st.text('ab "\\é\n'), "integer": st.integers(-(10**12), 10**12), "boolean": st.booleans()}
        return data.draw(scalar.get(part["type"] if isinstance(part["type"], str) else "", st.none()))

    assert accepts(schema, compact(draw(schema)))
