"""The recipe: schema + prompt + model policy + parameters. Same recipe id, same meaning of a row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from extractors.agreement import TEMPERATURE
from extractors.calibration import Calibration
from extractors.continuation import Beginning, rest_schema
from extractors.errors import JobError, SchemaError
from extractors.example_files import load_examples
from extractors.examples import Example, ExampleBank
from extractors.images import ImageLimits
from extractors.made_up import made_up_examples
from extractors.prompt_versions import choose_texts
from extractors.prompting import Prompter, describe
from extractors.qwen.fitting import SEEN_ACCEPTED, has_an_order, with_words
from extractors.qwen.modes import compile_shape
from extractors.qwen.requests import AnswerShape, Message, Mode
from extractors.repeats import may_repeat
from extractors.required_evidence import check_evidence
from extractors.routing import SHORT_ANSWER
from extractors.tools.loading import load_tools
from extractors.tools.toolbox import Toolbox
from extractors.tools.words import NOW
from extractors.tools.words import asking as asking_for
from extractors.tuned import TunedWays, check_tuned
from schemas.arrow import RowCodec, SchemaMappingError
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema, subschema
from schemas.keys import item_schema, key_of
from schemas.records import Record
from schemas.verbatim import has_verbatim

ALL = "*"
"""In ``require_evidence``: every field but choices among fixed values."""
_PACK = "pack"
"""What keys of shapes begin with that are no corrections."""
_EXAMPLES_SHARE = 4
"""A record's own examples have this part of what the model reads at most, and those that are common to all as much: half of
it is for the record."""
_LEAST_COPIED = 0.5
"""Of the examples' values this share are spans of their texts, where fields are written in the order of the record by themselves:
what is concluded, converted or put in other words has no place there. ``docs/values.md`` has what was measured."""
_COMMON = 12
"""Common examples of a job that does not say how many (docs/values.md has the measurements)."""
FORMAT = 1
"""Raise when the code changes what a row of an unchanged recipe would mean."""


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """Which model answers, and how it is asked. ``weights`` pins an embedded model's file by its hash."""

    name: str
    mode: Mode
    thinking: bool | None
    max_input_tokens: int
    max_output_tokens: int
    weights: str | None = None
    thinking_budget: int | None = None
    keywords: tuple[str, ...] = SEEN_ACCEPTED
    """What a strict schema may hold beyond the core keywords."""
    images: ImageLimits | None = None
    """What the model takes of pictures; None where the job has none."""
    logprobs: bool = False
    """Whether the model tells the probabilities of its tokens."""
    tokenizer: Callable[[str], int] | None = None
    """Counts a text's tokens as the model does; None where that is not known."""
    final: ModelPolicy | None = None
    """A stronger model for what this one is not sure of."""
    tuned: TunedWays | None = None
    """How the model was tuned to its schema, where it was: it is shown no examples, which are in its weights."""


@dataclass(frozen=True, slots=True)
class ListWays:
    """How lists of objects are made complete; the fields are the job's."""

    count: Literal["auto", "always", "never"] = "auto"
    max_windows: int = 200
    failed_windows: Literal["fail", "incomplete"] = "fail"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about a record's extraction that does not depend on the record."""

    id: str
    name: str
    model: type[BaseModel]
    codec: RowCodec
    schema: Mapping[str, Any]
    prompter: Prompter
    shape: AnswerShape
    policy: ModelPolicy
    temperature: float
    seed: int | None
    max_attempts: int
    max_output_tokens: int
    max_record_tokens: int | None
    require_evidence: tuple[str, ...]
    evidence_policy: Literal["null", "fail", "drop"]
    second_look: Literal["auto", "always", "never"]
    long_text: Literal["auto", "whole", "chunks"]
    context_tokens: int | None
    lists: ListWays
    instructions: str
    omits_unshown: bool
    """Whether nulls are left out also where no examples are shown, as of windows of a long record."""
    drops_repeats: bool
    """Whether the schema has lists of objects, which are taken out where they are told again."""
    verbatim: bool
    """Whether the schema has fields whose values must be spans of the record."""
    confidence: Literal["auto", "evidence", "never"]
    agreement: Literal["never", "always"]
    calibration: Calibration | None
    examples: ExampleBank | None
    tools: Toolbox | None
    """Look-ups that the model may make before it answers."""
    asking: Message | None
    """What it is told when it is asked for them."""
    final_shape: AnswerShape | None
    """``shape`` as the final model is asked for it; None where there is no final model."""
    route_below: float
    records_per_call: int
    """Short records that are asked together at most; see ``extractors.packing``."""
    document: Mapping[str, Any]
    """What ``recipe.json`` holds: enough to do it again."""
    _corrections: dict[tuple[str, ...], AnswerShape] = field(default_factory=dict, repr=False)
    derived: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What other modules compiled from this recipe once, by their own keys."""

    def looks_twice(self, images: Sequence[object]) -> bool:
        """Whether what is missing is asked a second time of a record with these pictures."""
        return self.second_look == "always" or (self.second_look == "auto" and bool(images))

    def shown(self, record: Record) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """The examples that a record is shown with in the questions of the model that answers first, and in those of the one
        that answers last."""
        found = () if self.examples is None else self.examples.of(record)
        first, last = (
            () if one.tuned is not None else found for one in (self.policy, self.policy.final or self.policy)
        )
        return first, last

    def rest_shape(self, base: AnswerShape, start: Beginning) -> AnswerShape:
        """The shape of what is missing of an answer in the shape ``base`` that was cut off. Raises ``KeyError``."""
        return compile_shape(
            f"{self.name}_rest", rest_schema(base.schema, start), base.mode, keywords=self.policy.keywords
        )

    def pack_shape(self, count: int) -> AnswerShape:
        """The shape of the answer about ``count`` records: an object with an answer under each number from 1."""
        key = (_PACK, str(count))
        shape = self._corrections.get(key)
        if shape is None:
            numbers = {str(number): self.shape.schema for number in range(1, count + 1)}
            wanted = {"type": "object", "properties": numbers, "required": list(numbers)}
            shape = self._corrections[key] = compile_shape(
                f"{self.name}_pack",
                wanted,
                self.shape.mode,
                keywords=self.policy.keywords,
                omit_nulls=self.shape.omit_nulls,
                text_order=self.shape.text_order,
            )
        return shape

    @property
    def _final_keywords(self) -> tuple[str, ...]:
        return self.policy.keywords if self.policy.final is None else self.policy.final.keywords

    def correction_shape(self, paths: Sequence[str], *, mode: Mode | None = None) -> AnswerShape:
        """The shape of an answer that holds just ``paths`` as keys, in the recipe's mode unless another is given;
        compiled once for each set of paths. A path that the schema cannot resolve makes the whole object the
        answer."""
        mode = mode or self.shape.mode
        whole = self.shape if mode is self.shape.mode or self.final_shape is None else self.final_shape
        keywords = self.policy.keywords if whole is self.shape else self._final_keywords
        key = (mode.value, *paths)
        shape = self._corrections.get(key)
        if shape is None:
            try:
                properties = {path: subschema(dict(self.schema), path) for path in paths}
            except KeyError:
                properties = {}
            if "" in properties or not properties:
                shape = whole
            else:
                wanted = {"type": "object", "properties": properties, "required": list(properties)}
                shape = compile_shape(f"{self.name}_correction", wanted, mode, keywords=keywords)
            if len(self._corrections) >= 512:
                self._corrections.clear()
            self._corrections[key] = shape
        return shape


def compile_recipe(
    job: ExtractionJob, model: type[BaseModel], policy: ModelPolicy, *, prompts: Mapping[str, str] | None = None
) -> Recipe:
    """Compile what the job asks for, with ``prompts`` in the place of its own prompt files. Raises ``SchemaError`` for a
    schema that has no typed table and for ``require_evidence`` fields that it does not have, ``JobError`` for a look-up or a
    prompt that cannot be loaded."""
    try:
        codec = RowCodec(model)
    except SchemaMappingError as error:
        raise SchemaError(str(error)) from error
    schema = answer_schema(model)
    _check_keys(schema)
    fields = [name for name in model.model_fields]
    unknown = [path for path in job.require_evidence if path.split("/")[0] not in fields and path != ALL]
    if unknown:
        raise SchemaError(
            f"require_evidence names {', '.join(unknown)}, which {model.__name__} does not have; "
            f"its fields are {', '.join(fields)}"
        )
    check_evidence([path for path in job.require_evidence if path != ALL], schema)
    agrees = job.agreement == "always"
    calibration = None
    if job.calibration is not None:
        calibration = Calibration.load(
            Path(job.calibration), model=policy.name, schema=schema_name(model), agreement=agrees
        )
    final = policy.final
    modes = {policy.mode} if final is None else {policy.mode, final.mode}
    held = modes == {Mode.GRAMMAR}
    omits = _omits(job, policy, held=held)
    text_order = _text_order(job, policy, omits=omits, modes=modes) and has_an_order(schema)
    examples = _examples(job, model, policy, omit_nulls=omits, text_order=text_order, held=held)
    if text_order and examples is not None and job.field_order == "auto" and _tuned(policy) is None:
        text_order = examples.made_up or examples.share_copied >= _LEAST_COPIED
        if not text_order:
            examples = _examples(job, model, policy, omit_nulls=omits, text_order=False, held=held)
    tools = load_tools(job.tools, timeout=job.tool_timeout, most_steps=job.max_tool_steps) if job.tools else None
    texts = choose_texts(job.prompt, own=prompts)
    policies = [policy] if final is None else [policy, final]
    # The embedded grammar holds constraints by itself; the other modes must be told of them, and a tuned model is told the
    # same whatever stands beside it.
    told = schema if held and _tuned(policy) is None else with_words(schema)
    prompter = Prompter(
        texts,
        told,
        instructions=job.instructions,
        pictures=policy.images is not None,
        omit_nulls=omits,
        text_order=text_order,
        compact=job.compact,
        look_ups=tools is not None,
    )
    check_tuned(job, {one.name: one.tuned for one in policies if one.tuned is not None}, prompter.system.content)
    asking = None if tools is None else asking_for(describe(told), job.instructions)
    ways = {"omit_nulls": omits, "text_order": text_order}
    shape = compile_shape(model.__name__, schema, policy.mode, keywords=policy.keywords, **ways)
    max_output_tokens = min(job.max_output_tokens, policy.max_output_tokens)
    asked = {
        "name": policy.name,
        "mode": policy.mode.value,
        "thinking": policy.thinking,
        "thinking_budget": policy.thinking_budget,
        "weights_sha256": policy.weights,
        **({} if policy.tuned is None else {"tuned": True}),
        "temperature": job.temperature,
        "seed": job.seed,
        "max_output_tokens": max_output_tokens,
    }
    document: dict[str, Any] = {
        "format": FORMAT,
        "name": schema_name(model),
        "schema": schema,
        "schema_spec": job.schema_spec,
        "prompt": {
            "version": texts.version,
            "system": prompter.system.content,
            "correct": texts.correct,
            "reask": texts.reask,
            "continue": texts.rest,
            **({"own": dict(texts.own)} if texts.own else {}),
        },
        "model": asked,
        "corrections": {"max_attempts": job.max_attempts, "max_record_tokens": job.max_record_tokens},
        "evidence": {"require": sorted(job.require_evidence), "policy": job.evidence_policy},
        "text": job.text,
    }
    if policy.images is not None:
        document["images"] = policy.images.as_dict()
    if job.second_look == "always" or (job.second_look == "auto" and policy.images is not None):
        document["second_look"] = {"of": job.second_look, "prompt": texts.look}
    if agrees:
        document["agreement"] = {"of": job.agreement, "temperature": max(job.temperature, TEMPERATURE)}
    if job.long_text != "auto" or job.context_tokens is not None:
        document["long_text"] = {"how": job.long_text, "context_tokens": job.context_tokens}
    if job.records_per_call > 1:
        if policy.mode is Mode.GRAMMAR and has_verbatim(schema):
            raise SchemaError(
                f"records_per_call is {job.records_per_call}, but {model.__name__} has verbatim fields, which the embedded "
                "model is held to by a grammar made of each record's own text: leave records_per_call out"
            )
        document["records_per_call"] = {"most": job.records_per_call, "prompt": texts.pack}
    if job.embedding_model is not None or job.rerank_model is not None:
        document["retrieval"] = {
            "embedding_model": job.embedding_model,
            "embedding_dimensions": job.embedding_dimensions,
            "rerank_model": job.rerank_model,
        }
    if job.count_lists != "auto":
        document["count_lists"] = job.count_lists
    if job.failed_windows != "fail":
        document["failed_windows"] = job.failed_windows
    drops_repeats = job.repeated_items == "drop" and may_repeat(schema)
    if drops_repeats:
        document["repeated_items"] = "drop"
    if omits:
        # The words are in the prompt; what is missing of an answer means what its null would.
        document["omit_nulls"] = True if job.omit_nulls else "as tuned" if _tuned(policy) else "after examples"
    if text_order:
        document["field_order"] = "text"
    if examples is not None:
        document["examples"] = examples.as_dict()
    if final is not None:
        document["routing"] = {
            "final": final.name,
            "weights_sha256": final.weights,
            "below": job.route_below,
            "confidence": job.confidence,
            "prompt": texts.look,
            # A final that knows whole answers is asked for one too, where the draft's is short.
            **({} if examples is None and final.tuned is None else {"whole_up_to": SHORT_ANSWER}),
            # What is doubtful depends on what is counted.
            **({"scores": "with keys"} if omits else {}),
        }
    if tools is not None and asking is not None:
        document["tools"] = {**tools.as_dict(), "prompt": f"{asking.content}\n{NOW}"}
    if calibration is not None:
        # It gives the numbers in the rows another meaning, and lies beside them as data.
        document["calibration"] = calibration.as_dict()
    identity = {key: value for key, value in document.items() if key not in ("schema_spec", "text", "images")}
    # The same text in a file of its own asks the same: only what it makes counts.
    identity["prompt"] = {key: value for key, value in document["prompt"].items() if key != "own"}
    # A row means the same in whichever mode it was asked for, and what is known of a model changes with time:
    # what was asked for takes part, and what came of it does not, so that nothing is paid for again.
    identity["model"] = {
        **{key: value for key, value in asked.items() if not key.startswith("thinking")},
        "mode": job.mode,
        "thinking": job.thinking or None,
    }
    identity["validation"] = _validation_identity(model)
    return Recipe(
        id=hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        name=schema_name(model),
        model=model,
        codec=codec,
        schema=schema,
        prompter=prompter,
        shape=shape,
        policy=policy,
        temperature=job.temperature,
        seed=job.seed,
        max_attempts=job.max_attempts,
        max_output_tokens=max_output_tokens,
        max_record_tokens=job.max_record_tokens,
        require_evidence=job.require_evidence,
        evidence_policy=job.evidence_policy,
        second_look=job.second_look,
        long_text=job.long_text,
        context_tokens=job.context_tokens,
        lists=ListWays(job.count_lists, job.max_windows, job.failed_windows),
        instructions=job.instructions,
        omits_unshown=bool(job.omit_nulls) or (omits and policy.tuned is not None),
        drops_repeats=drops_repeats,
        verbatim=has_verbatim(schema),
        confidence=job.confidence,
        agreement=job.agreement,
        calibration=calibration,
        examples=examples,
        tools=tools,
        asking=asking,
        final_shape=None
        if final is None
        # The same schema, by which the whole answer is known.
        else replace(
            compile_shape(model.__name__, schema, final.mode, keywords=final.keywords, **ways),
            schema=shape.schema,
        ),
        route_below=job.route_below,
        records_per_call=job.records_per_call,
        document=document,
    )


def _tuned(policy: ModelPolicy) -> TunedWays | None:
    """How the model that answers first was tuned, else the final one."""
    return policy.tuned or (None if policy.final is None else policy.final.tuned)


def _omits(job: ExtractionJob, policy: ModelPolicy, *, held: bool) -> bool:
    """Whether nulls are left out. By itself as a tuned model has it, else only where the answers of similar examples leave
    them out too and a grammar holds the form: without examples, or with the same for every record, models left out values as
    well."""
    if job.omit_nulls is not None:
        return job.omit_nulls
    if (tuned := _tuned(policy)) is not None:
        return tuned.omit_nulls
    return job.examples is not None and job.examples_choice == "similar" and held


def _text_order(job: ExtractionJob, policy: ModelPolicy, *, omits: bool, modes: Set[Mode]) -> bool:
    """Whether what may be left out is written in the order of the record. Raises ``JobError`` where that is told and cannot
    be."""
    strict = modes & {Mode.JSON_SCHEMA, Mode.TOOLS}
    if job.field_order == "auto" and (tuned := _tuned(policy)) is not None:
        if omits and tuned.text_order and strict:
            raise JobError(
                "a model that was tuned so writes fields in the order of the record, and the mode "
                f"{min(strict).value} holds an answer to the schema's order: tune it with --field-order schema"
            )
        return omits and tuned.text_order
    if job.field_order != "text":
        return job.field_order == "auto" and omits and modes == {Mode.GRAMMAR}
    if not omits:
        raise JobError(
            "field_order is text, but every field is to be written: say omit_nulls too, so that an answer begins with what "
            "the record says first"
        )
    if strict:
        raise JobError(
            f"field_order is text, but the mode {min(strict).value} holds an answer to the schema's order: leave field_order "
            "out, or ask in the mode grammar, json_object or prompted"
        )
    return True


def _examples(
    job: ExtractionJob, model: type[BaseModel], policy: ModelPolicy, *, omit_nulls: bool, text_order: bool, held: bool
) -> ExampleBank | None:
    """The labelled examples, or without those made-up ones; none for tuned models. Made-up ones, and those that are common to
    all records, earn their tokens where decoding is ``held`` to a grammar; other models were not measured."""
    policies = [policy] if policy.final is None else [policy, policy.final]
    if all(one.tuned is not None for one in policies):
        return None
    if job.examples is not None:
        reads = min(one.max_input_tokens for one in policies)
        common = job.examples_common
        if common is None:
            common = _COMMON if held and job.examples_choice == "similar" else 0
        return load_examples(
            Path(job.examples),
            model,
            shown=job.examples_shown,
            choice=job.examples_choice,
            text=job.text,
            omit_nulls=omit_nulls,
            text_order=text_order,
            room=reads // _EXAMPLES_SHARE,
            common=common,
        )
    wanted = job.made_up_examples == "always" or (
        job.made_up_examples == "auto" and policy.mode is Mode.GRAMMAR and policy.images is None
    )
    return made_up_examples(model, omit_nulls=omit_nulls, text_order=text_order) if wanted else None


def _check_keys(schema: Mapping[str, Any]) -> None:
    """Raises ``SchemaError`` for a list whose key names a field that its items do not have."""
    for name, each in schema.get("properties", {}).items():
        item = item_schema(each)
        if item is not None:
            try:
                key_of(each, item)
            except SchemaMappingError as error:
                raise SchemaError(f"{name}: {error}") from error


def schema_name(model: type[BaseModel]) -> str:
    """The folder and view name of a model: its class name in snake case."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", model.__name__)
    return re.sub(r"\W+", "_", snake).strip("_").lower() or "extraction"


def _validation_identity(model: type[BaseModel]) -> str:
    """A hash over the model's full JSON Schema: defaults and constraints that the answer schema leaves
    out still change what a row means. Validators written in Python are code and are not hashed."""
    text = orjson.dumps(model.model_json_schema(), option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(text).hexdigest()
