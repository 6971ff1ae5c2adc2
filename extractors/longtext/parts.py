"""The recipes of the parts into which a long record's questions fall: its lists of objects, a window at a time, and the
rest of its fields. Compiled once a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PlainValidator, WrapValidator, create_model
from pydantic.fields import FieldInfo

from extractors.prompting import describe
from extractors.qwen.fitting import has_an_order, with_words
from extractors.qwen.modes import compile_shape
from extractors.qwen.requests import Mode
from extractors.recipe import ALL, Recipe
from extractors.tools.words import asking as asking_for
from schemas.arrow import RowCodec
from schemas.jsonschema import answer_schema
from schemas.keys import item_schema, key_of

WINDOW_RULE = (
    "The record is one part of a longer text. Give every item of each list that stands in this part, in the order of the "
    "text, once for each time it stands there. Leave out an item that is cut off by the beginning or the end of the part: "
    "another part has it whole."
)
COUNT_RULE = "Count the items of a list before you write it; never leave items out, shorten the list or sum it up."
GAP = (
    "An answer about this record has {{done}} items in {{list}}{{count}}. It has these, of each the beginning:\n{{labels}}\n"
    "Read the record again and give in {{list}} just the items that are missing there, in the order of the text, [] if there "
    "are none. Do not repeat an item."
)
MORE_ATTEMPTS = 4
"""Calls that the parts of one list which is cut off may take beside the attempts of a record."""
_FUNCTIONS = (AfterValidator, BeforeValidator, PlainValidator, WrapValidator)
_CACHE, _LISTS = "longtext.parts", "longtext.lists"


@dataclass(frozen=True, slots=True)
class ListField:
    """A list of objects at the top of a schema: its name in Python, in JSON, and where items are counted; ``key`` are
    the JSON names of the fields that tell its items apart."""

    name: str
    path: str
    count: str
    key: tuple[str, ...]
    item: Any


@dataclass(frozen=True, slots=True)
class Parts:
    """``lists`` are the fields asked for window by window with ``window``; ``rest`` asks for the other fields (None: there
    are none), ``whole`` for all at once with counts; ``model`` puts together what they gave."""

    lists: tuple[ListField, ...]
    window: Recipe
    gap: Recipe
    rest: Recipe | None
    whole: Recipe
    model: type[BaseModel]


def parts_of(recipe: Recipe) -> Parts | None:
    """The parts of a recipe, None where its schema has no list of objects."""
    if _CACHE not in recipe.derived:
        recipe.derived[_CACHE] = _compiled(recipe)
    found: Parts | None = recipe.derived[_CACHE]
    return found


def has_lists(recipe: Recipe) -> bool:
    """Whether the schema has a list of objects."""
    return bool(_lists(recipe))


def _lists(recipe: Recipe) -> tuple[ListField, ...]:
    found: tuple[ListField, ...] | None = recipe.derived.get(_LISTS)
    if found is None:
        found = recipe.derived[_LISTS] = _list_fields(recipe)
    return found


def _compiled(recipe: Recipe) -> Parts | None:
    lists = _lists(recipe)
    if not lists:
        return None
    model = recipe.model
    # A window's items have no second answer that would have just the same ones.
    recipe = replace(recipe, agreement="never")
    by_name = {one.name: one for one in lists}
    bare: dict[str, Any] = {}
    counted: dict[str, Any] = {}
    for one in lists:
        field = model.model_fields[one.name]
        about = (list[one.item], _bare(field))  # type: ignore[name-defined]
        bare[one.name] = about
        note = f"How many items of {one.path} this record holds."
        counted |= {one.count: (int, Field(default=0, ge=0, description=note)), one.name: about}
    others: dict[str, Any] = {
        name: (field.annotation, field) for name, field in model.model_fields.items() if name not in by_name
    }
    whole: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        whole |= (
            {name: (field.annotation, field)}
            if name not in by_name
            else {by_name[name].count: counted[by_name[name].count], name: bare[name]}
        )
    counting = recipe.lists.count != "never"
    rules = f"{WINDOW_RULE}\n{COUNT_RULE}" if counting else WINDOW_RULE
    window = _narrowed(recipe, counted if counting else bare, names=list(by_name), rules=rules)
    gap = _narrowed(recipe, bare, names=list(by_name), rules=rules)
    return Parts(
        lists,
        window,
        # What is missing of a window is not looked up again.
        replace(gap, tools=None, asking=None),
        _narrowed(recipe, others, names=list(others), rules="", windowed=False) if others else None,
        _narrowed(
            # What is counted is shown whole.
            replace(recipe, long_text="auto") if recipe.long_text == "chunks" else recipe,
            whole,
            names=list(model.model_fields),
            rules=COUNT_RULE,
            windowed=False,
        ),
        _once(model, list(others)),
    )


def _once(model: type[BaseModel], names: Sequence[str]) -> type[BaseModel]:
    """The model without the functions in the annotations of these fields, whose values they made already: a second time they
    would find their own results, and change them again or fail."""
    made: dict[str, Any] = {}
    for name in names:
        field = model.model_fields[name]
        if any(isinstance(each, _FUNCTIONS) for each in field.metadata):
            given = {"default_factory": field.default_factory} if field.default_factory else {"default": field.default}
            aliases = (field.alias, field.validation_alias, field.serialization_alias)
            names_of = dict(zip(("alias", "validation_alias", "serialization_alias"), aliases, strict=True))
            made[name] = (Any, Field(**given, **names_of))  # type: ignore[call-overload]
    return create_model(model.__name__, __base__=model, **made) if made else model


def _list_fields(recipe: Recipe) -> tuple[ListField, ...]:
    properties = recipe.schema.get("properties", {})
    found = []
    for name, field in recipe.model.model_fields.items():
        key = key_in_json(name, field)
        item = item_schema(properties.get(key, {}))
        kind = _item_type(field.annotation)
        if item is None or kind is None:
            continue
        count = f"{name}_count"
        while count in recipe.model.model_fields or count in properties:
            count += "_"
        found.append(ListField(name, key, count, key_of(properties[key], item), kind))
    return tuple(found)


def key_in_json(name: str, field: FieldInfo) -> str:
    """A field's key in the JSON answer."""
    alias = field.validation_alias if isinstance(field.validation_alias, str) else field.alias
    return alias or name


def _item_type(annotation: Any) -> Any:
    """What a list of models holds, through a union with None; None for anything else."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return _item_type(kinds[0]) if len(kinds) == 1 else None
    if hasattr(annotation, "__metadata__"):
        return _item_type(get_args(annotation)[0])
    if origin is not list:
        return None
    (item,) = get_args(annotation)
    held = get_args(item) if get_origin(item) in (Union, UnionType) else (item,)
    return item if all(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in held) else None


def _bare(field: FieldInfo) -> Any:
    """The list's field without its limits, which the whole list has and no part of it."""
    return Field(
        alias=field.alias,
        validation_alias=field.validation_alias,
        serialization_alias=field.serialization_alias,
        description=field.description,
    )


def _narrowed(
    recipe: Recipe, fields: Mapping[str, Any], *, names: Sequence[str], rules: str, windowed: bool = True
) -> Recipe:
    """The recipe for just these fields. A window is asked as it is, without examples, whose answers are whole objects."""
    model: type[BaseModel] = create_model(
        f"{recipe.model.__name__}Part", __config__=recipe.model.model_config, **fields
    )
    schema = answer_schema(model)
    policy, final = recipe.policy, recipe.policy.final
    omits = recipe.omits_unshown
    # Items are counted before they are written.
    ordered = omits and recipe.shape.text_order and COUNT_RULE not in rules and has_an_order(schema)
    ways = {"omit_nulls": omits, "text_order": ordered}
    modes = {policy.mode} if final is None else {policy.mode, final.mode}
    shape = compile_shape(model.__name__, schema, policy.mode, keywords=policy.keywords, **ways)
    required = tuple(path for path in recipe.require_evidence if path == ALL or path.split("/")[0] in names)
    return replace(
        recipe,
        model=model,
        codec=RowCodec(model),
        schema=schema,
        prompter=recipe.prompter.about(schema if modes == {Mode.GRAMMAR} else with_words(schema), also=rules, **ways),
        shape=shape,
        final_shape=None
        if final is None
        else replace(
            compile_shape(model.__name__, schema, final.mode, keywords=final.keywords, **ways),
            schema=shape.schema,
        ),
        max_attempts=recipe.max_attempts + MORE_ATTEMPTS if windowed else recipe.max_attempts,
        require_evidence=required,
        long_text="whole" if windowed else recipe.long_text,
        examples=None,
        asking=None if recipe.tools is None else asking_for(describe(schema), recipe.instructions),
        _corrections={},
        derived={},
    )
