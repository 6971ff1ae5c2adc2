"""The recipe: schema + prompt + model policy + parameters. Same recipe id, same meaning of a row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from extractors.errors import SchemaError
from extractors.prompting import Prompter, load_texts
from extractors.qwen.fitting import SEEN_ACCEPTED, with_words
from extractors.qwen.modes import compile_shape
from extractors.qwen.requests import AnswerShape, Mode
from schemas.arrow import RowCodec, SchemaMappingError
from schemas.job import ExtractionJob
from schemas.jsonschema import answer_schema, subschema

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
    evidence_policy: Literal["null", "fail"]
    document: Mapping[str, Any]
    """What ``recipe.json`` holds: enough to do it again."""
    _corrections: dict[tuple[str, ...], AnswerShape] = field(default_factory=dict, repr=False)

    def correction_shape(self, paths: Sequence[str]) -> AnswerShape:
        """The shape of an answer that holds just ``paths`` as keys; compiled once for each set of
        paths. A path that the schema cannot resolve makes the whole object the answer."""
        key = tuple(paths)
        shape = self._corrections.get(key)
        if shape is None:
            try:
                properties = {path: subschema(dict(self.schema), path) for path in key}
            except KeyError:
                properties = {}
            if "" in properties or not properties:
                shape = self.shape
            else:
                wanted = {"type": "object", "properties": properties, "required": list(properties)}
                shape = compile_shape(f"{self.name}_correction", wanted, self.shape.mode, keywords=self.policy.keywords)
            if len(self._corrections) >= 512:
                self._corrections.clear()
            self._corrections[key] = shape
        return shape


def compile_recipe(job: ExtractionJob, model: type[BaseModel], policy: ModelPolicy) -> Recipe:
    """Compile what the job asks for. Raises ``SchemaError`` for a schema that has no typed table and
    for ``require_evidence`` fields that it does not have."""
    try:
        codec = RowCodec(model)
    except SchemaMappingError as error:
        raise SchemaError(str(error)) from error
    schema = answer_schema(model)
    fields = [name for name in model.model_fields]
    unknown = [path for path in job.require_evidence if path.split("/")[0] not in fields]
    if unknown:
        raise SchemaError(
            f"require_evidence names {', '.join(unknown)}, which {model.__name__} does not have; "
            f"its fields are {', '.join(fields)}"
        )
    texts = load_texts()
    # The embedded grammar holds constraints by itself; the other modes must be told of them.
    told = schema if policy.mode is Mode.GRAMMAR else with_words(schema)
    prompter = Prompter(texts, told, instructions=job.instructions)
    shape = compile_shape(model.__name__, schema, policy.mode, keywords=policy.keywords)
    max_output_tokens = min(job.max_output_tokens, policy.max_output_tokens)
    asked = {
        "name": policy.name,
        "mode": policy.mode.value,
        "thinking": policy.thinking,
        "thinking_budget": policy.thinking_budget,
        "weights_sha256": policy.weights,
        "temperature": job.temperature,
        "seed": job.seed,
        "max_output_tokens": max_output_tokens,
    }
    document = {
        "format": FORMAT,
        "name": schema_name(model),
        "schema": schema,
        "schema_spec": job.schema_spec,
        "prompt": {
            "version": texts.version,
            "system": prompter.system.content,
            "correct": texts.correct,
            "reask": texts.reask,
        },
        "model": asked,
        "corrections": {"max_attempts": job.max_attempts, "max_record_tokens": job.max_record_tokens},
        "evidence": {"require": sorted(job.require_evidence), "policy": job.evidence_policy},
        "text": job.text,
    }
    identity = {key: value for key, value in document.items() if key not in ("schema_spec", "text")}
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
        document=document,
    )


def schema_name(model: type[BaseModel]) -> str:
    """The folder and view name of a model: its class name in snake case."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", model.__name__)
    return re.sub(r"\W+", "_", snake).strip("_").lower() or "extraction"


def _validation_identity(model: type[BaseModel]) -> str:
    """A hash over the model's full JSON Schema: defaults and constraints that the answer schema leaves
    out still change what a row means. Validators written in Python are code and are not hashed."""
    text = orjson.dumps(model.model_json_schema(), option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(text).hexdigest()
