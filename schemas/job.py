"""``ExtractionJob``: one model that is the TOML file, the command line's options and the Prefect form."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.form import flattened


class ExtractionJob(BaseModel):
    """What to extract, from where, with which model, into which folder, under which ceilings."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)

    source: str | None = Field(
        default=None,
        description="A CSV, TSV, JSON, JSONL or Parquet file, a folder of text files, or a glob.",
        examples=["examples/data/products.csv", "mail/*.txt"],
    )
    duckdb: str | None = Field(
        default=None, description="A DuckDB database file to read from, with `sql` or a table name in `source`."
    )
    sql: str | None = Field(
        default=None, description="A SQL query whose rows are the records.", examples=["select * from tickets"]
    )
    schema_spec: str = Field(
        alias="schema",
        description="What to extract: `package.module:Model`, a JSON Schema file, or a one-line spec.",
        examples=["schemas.product:Product", "name, price: float, tags: list[str]"],
    )
    out: str = Field(description="The output folder, or `s3://bucket/prefix` on an object store.")
    s3_endpoint: str | None = Field(
        default=None,
        description="The address of an S3-compatible store other than Amazon's, such as http://minio:9000. "
        "Default: AWS_ENDPOINT_URL.",
    )
    catalog: str | None = Field(
        default=None,
        description="The DuckDB file with the views. Default: catalog.duckdb in a local output; none for an object store.",
    )
    id: str | None = Field(default=None, description="The column that names a record. Default: a hash of its content.")
    text: str | None = Field(
        default=None,
        description="The column with the text, or a template such as `{title}\\n{body}`. "
        "Default: `text`, or the only text column.",
    )
    image: str | None = Field(
        default=None,
        description="The column with a record's picture: a path, an https address, or bytes. Text is then optional.",
    )
    image_root: str | None = Field(
        default=None, description="The folder that paths of pictures may not leave. Default: the source's folder."
    )
    image_hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts that addresses of pictures may name, `*.example.com` for all below one. Default: any public one.",
    )
    scanned_pages: Literal["skip", "pictures"] = Field(
        default="skip",
        description="Pages of PDFs that are pictures without text: left out (a document that is nothing else goes to the "
        "ledger), or asked about as pictures, for which the model must read those.",
    )
    document_max_pages: int = Field(default=2_000, ge=1, description="Pages of a document; one with more is not read.")
    document_max_mb: int = Field(
        default=100, ge=1, le=2_000, description="Megabytes of a document's file; a larger one is not read."
    )
    document_timeout: float = Field(
        default=60.0, gt=0, description="Seconds that reading one document may take, in a process of its own."
    )
    second_look: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Whether fields that stay null or are not found in the text are asked a second time; "
        "auto asks for records with pictures.",
    )
    keep: tuple[str, ...] = Field(
        default=(), description="Source columns carried into the rows; `column:name` renames one."
    )
    instructions: str = Field(default="", description="Extra instructions for the model, part of the recipe.")
    tools: tuple[str, ...] = Field(
        default=(),
        description="Look-ups that the model may make before it answers: `module:function`, or "
        "`name=duckdb:FILE:select ... where x = $x`; part of the recipe.",
    )
    tool_timeout: float = Field(default=10.0, gt=0, description="Seconds for one look-up.")
    max_tool_steps: int = Field(default=8, ge=1, le=100, description="Look-ups for a record at most.")
    examples: str | None = Field(
        default=None,
        description="A JSONL or Parquet file of labelled records (`text`, `expected`) of which some are shown with each "
        "record; part of the recipe.",
    )
    examples_shown: int = Field(default=3, ge=1, le=20, description="Examples shown with a record at most.")
    examples_choice: Literal["similar", "fixed"] = Field(
        default="similar",
        description="Whether each record is shown the examples most like it, or every one the first of the file.",
    )
    examples_common: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Similar examples: how many others come before them, the same for every record, so that a prompt cache "
        "has them. Default: 12 where decoding is held to a grammar, as the embedded models' is; else none.",
    )
    made_up_examples: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Without `examples`, show two records made up from the schema before each record; part of the recipe. "
        "`auto`: where decoding is held to a grammar, as the embedded models' is.",
    )
    prompt: str | None = Field(
        default=None,
        description="Versions of the prompts, such as `v1`, `extract.v1` or a file of your own `my/extract.short.txt`; part "
        "of the recipe. Default: the newest.",
    )
    model: str | None = Field(
        default=None, description="The model. Default: QWEN_DEFAULT_MODEL, else the embedded one."
    )
    draft: str | None = Field(
        default=None, description="The cheap model that answers first, where a final one is named; the same as `model`."
    )
    final: str | None = Field(
        default=None,
        description="A stronger model for the fields of which the first is not sure.",
    )
    high_accuracy: bool = Field(
        default=False,
        description="Ask a final model about doubtful fields: the job's, QWEN_FINAL_MODEL, or the usual strong one.",
    )
    route_below: float = Field(
        default=0.8, ge=0, le=1.01, description="Confidence below which a field goes to the final model."
    )
    base_url: str | None = Field(
        default=None, description="The root of an OpenAI-compatible API. Default: QWEN_BASE_URL_COMPAT, else embedded."
    )
    region: str | None = Field(
        default=None,
        description="The hosted region, such as beijing or intl (Singapore), in the place of an address. "
        "Default: DASHSCOPE_REGION.",
    )
    credentials: str | None = Field(
        default=None,
        description="The name of a saved Prefect block of the kind Qwen credentials: key, region, address, workspace. "
        "Default: the environment.",
    )
    workspace: str | None = Field(
        default=None,
        description="A workspace id of the hosted service, for the workspace's own host. Default: QWEN_WORKSPACE.",
    )
    dialect: Literal["auto", "chat", "responses", "dashscope"] = Field(
        default="auto", description="The wire format; auto takes it from the model's profile."
    )
    stream: Literal["auto", "always", "never"] = Field(
        default="auto", description="Whether replies are streamed; auto streams where an answer may take long."
    )
    thinking: int | None = Field(
        default=None,
        ge=0,
        description="Tokens that the model may think before it answers; part of the recipe. Default: it does not think.",
    )
    lane: Literal["live", "batch", "mixed"] = Field(
        default="live",
        description="How calls travel: live, through the provider's Batch API at half the price, or in batches with "
        "the last few live.",
    )
    live_tail: int = Field(
        default=100, ge=0, le=50_000, description="Mixed lane: so many records or fewer are asked live, not in a batch."
    )
    live_after: float | None = Field(
        default=None,
        gt=0,
        description="Mixed lane: hours after which a batch is cancelled and what is left of it is asked live.",
    )
    batch_window: str = Field(default="24h", description="Time that a batch may take: 24h to 336h, or 1d to 14d.")
    batch_requests: int = Field(default=50_000, ge=1, le=50_000, description="Requests in a batch at most.")
    batch_wait: bool = Field(
        default=True,
        description="Wait for batches to end; without it a run submits, stops, and the same command later collects.",
    )
    batch_poll: float = Field(
        default=60.0, gt=0, description="Seconds until batches are looked at again, growing to ten times as much."
    )
    mode: Literal["auto", "json_schema", "json_object", "tools", "prompted", "grammar"] = Field(
        default="auto", description="How structured output is asked for; auto takes it from the model's profile."
    )
    concurrency: int | None = Field(
        default=None, ge=1, description="Most calls in flight. Default: 64, embedded: its slots."
    )
    rpm: int | None = Field(default=None, ge=1, description="Requests a minute at most.")
    tpm: int | None = Field(default=None, ge=1, description="Tokens a minute at most.")
    rate_limit_name: str | None = Field(
        default=None,
        description="A Prefect global limit of calls a second that all machines share; it must exist, with a slot decay.",
    )
    max_cost: Decimal | None = Field(default=None, ge=0, description="Money at most, in the price table's currency.")
    max_tokens: int | None = Field(default=None, ge=1, description="Input and output tokens at most, together.")
    max_records: int | None = Field(default=None, ge=1, description="Records asked at most in this run.")
    sample: int | None = Field(
        default=None,
        ge=5,
        le=1_000,
        description="Different texts asked first, to tell what the rest costs and how long it takes; they are kept as "
        "results. Default: 20 where `approve_above` is given.",
    )
    approve_above: Decimal | None = Field(
        default=None,
        ge=0,
        description="Money above which the run waits for approval after the sample, when the estimate's upper end is "
        "more: in Prefect's UI, or at the terminal.",
    )
    max_attempts: int = Field(
        default=3, ge=1, le=10, description="Answers asked of the model for a record at most, corrections included."
    )
    max_output_tokens: int = Field(default=2048, ge=16, description="Output tokens of one call at most.")
    max_record_tokens: int | None = Field(
        default=None, ge=1, description="Tokens that one record may use over all its calls."
    )
    require_evidence: tuple[str, ...] = Field(
        default=(),
        description="Fields whose values must be found in the record's text; `*` for all but choices.",
    )
    evidence_policy: Literal["null", "fail", "drop"] = Field(
        default="null",
        description="What happens to a required-evidence value that stays ungrounded after correction: "
        "null where the field allows it, or out of its list (else fail), or fail the record; drop does so at once, "
        "without a call.",
    )
    repeated_items: Literal["drop", "keep"] = Field(
        default="drop",
        description="What happens to an object of texts that its list has twice and the record once: it is taken out, or kept; "
        "part of the recipe.",
    )
    long_text: Literal["auto", "whole", "chunks"] = Field(
        default="auto",
        description="How a long record is asked: auto shows the chunks of it that matter where it does not fit, chunks does "
        "so with all that are not short, whole never; part of the recipe where it is not auto.",
    )
    context_tokens: int | None = Field(
        default=None,
        ge=256,
        description="Tokens of a record's text that one call shows at most; part of the recipe where it is given. "
        "Default: what the model takes, but of a longer record no more than 32,768.",
    )
    embedding_model: str | None = Field(
        default=None,
        description="A model whose vectors help to find the chunks of a long record that matter, such as text-embedding-v4; "
        "part of the recipe. Default: they are found by their words alone.",
    )
    embedding_dimensions: int | None = Field(
        default=None, ge=1, le=65_536, description="Length of the vectors. Default: the embedding model's usual one."
    )
    rerank_model: str | None = Field(
        default=None,
        description="A model that orders the best chunks once more, such as qwen3-rerank: a call for each field of each long "
        "record; part of the recipe.",
    )
    count_lists: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Whether the model counts the items of lists of objects and is asked for those that are missing: auto "
        "in records that are longer than one call, always in all; part of the recipe where it is not auto.",
    )
    max_windows: int = Field(
        default=200,
        ge=1,
        le=10_000,
        description="Windows into which a record that is longer than one call is cut for its lists of objects at most; one "
        "that needs more fails as too_long, unasked.",
    )
    failed_windows: Literal["fail", "incomplete"] = Field(
        default="fail",
        description="What a window that cannot be read means: the record fails, or its lists are marked as incomplete; part "
        "of the recipe where it is not fail.",
    )
    omit_nulls: bool | None = Field(
        default=None,
        description="Let the model leave out fields that would be null, where the schema allows it; part of the recipe. "
        "Default: only where it is shown similar `examples` and decoding is held to a grammar, as the embedded models' is.",
    )
    field_order: Literal["auto", "schema", "text"] = Field(
        default="auto",
        description="Whether the fields that may be left out are written in the schema's order or in that in which the record "
        "has their values; part of the recipe. auto: the record's where nulls are left out, decoding is held to a grammar and "
        "most of the examples' values are spans of their texts.",
    )
    compact: bool = Field(
        default=False,
        description="Tell the model to write its JSON without white space (a grammar sees to that by itself); part of "
        "the recipe.",
    )
    records_per_call: int = Field(
        default=1,
        ge=1,
        le=32,
        description="Short records that are asked in one call at most, each still with a row of its own; part of the "
        "recipe.",
    )
    confidence: Literal["auto", "evidence", "never"] = Field(
        default="auto",
        description="Where `_confidence` comes from: auto takes the model's token probabilities where it tells them, "
        "else evidence.",
    )
    agreement: Literal["never", "always"] = Field(
        default="never",
        description="Whether each record is asked its first question a second time, sampled anew, so that confidence tells "
        "values that come out the same from those that do not; a call more for each record, part of the recipe.",
    )
    calibration: str | None = Field(
        default=None,
        description="A calibration file that makes probabilities of confidence scores; part of the recipe.",
    )
    review_below: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Values of less confidence wait in `quarry review`, and are in the catalog's view of doubtful values.",
    )
    ledger_text: Literal["none", "hash", "full"] = Field(
        default="full", description="How much of a failed record's text the ledger keeps."
    )
    max_failure_rate: float = Field(
        default=0.5, ge=0, le=1, description="Share of failures above which the flow run counts as failed."
    )
    chunk_size: int = Field(default=200, ge=1, le=10_000, description="Distinct records in a chunk.")
    temperature: float = Field(default=0.0, ge=0, lt=2, description="Sampling temperature.")
    seed: int | None = Field(default=None, ge=0, lt=2**31, description="Sampling seed.")
    timeout: float = Field(default=300.0, gt=0, description="Seconds for one call.")
    idle_timeout: float = Field(default=60.0, gt=0, description="Seconds that a streamed reply may be silent.")
    transport_attempts: int = Field(
        default=4, ge=1, le=20, description="Tries of one call on 429, 5xx, time-outs and resets."
    )
    transport_seconds: float = Field(
        default=900.0, gt=0, description="Total seconds for one call's tries, waits included."
    )
    runner: Literal["threads", "dask"] = Field(
        default="threads",
        description="Engine prefect: where chunks are answered, in threads of the flow's process or by the workers of a Dask cluster.",
    )
    dask_address: str | None = Field(
        default=None,
        description="The scheduler of a Dask cluster, tcp://host:8786. Default: a cluster on this machine.",
    )
    dask_workers: int | None = Field(
        default=None, ge=1, description="Worker processes of a cluster on this machine. Default: one for each core."
    )
    engine: Literal["direct", "prefect"] = Field(
        default="direct", description="Run in this process, or as a Prefect flow."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_a_form(cls, told: Any) -> Any:
        return flattened(told)

    @model_validator(mode="after")
    def _source_is_one(self) -> ExtractionJob:
        if self.sql is not None and self.source is not None:
            raise ValueError("give `source` or `sql`, not both")
        if self.source is None and self.sql is None:
            raise ValueError("give `source` (a file, a folder, a glob, or a table of `duckdb`) or `sql`")
        return self

    @model_validator(mode="after")
    def _packs_are_plain(self) -> ExtractionJob:
        if self.records_per_call > 1 and self.tools:
            raise ValueError("a call about several records makes no look-ups: leave out `records_per_call`, or `tools`")
        if self.records_per_call > 1 and self.count_lists == "always":
            raise ValueError(
                "a call about several records counts no lists: leave out `records_per_call`, or `count_lists`"
            )
        return self

    @model_validator(mode="after")
    def _models_are_clear(self) -> ExtractionJob:
        if self.draft is not None and self.model is not None:
            raise ValueError("`draft` and `model` both name the model that answers first: give one of them")
        if self.draft is not None and self.final is None and not self.high_accuracy:
            raise ValueError("a `draft` needs a `final` model beside it, or `high_accuracy`")
        if (self.final is not None or self.high_accuracy) and self.lane != "live":
            raise ValueError("a final model answers in the live lane only: leave `lane` out, or `final`")
        if self.tools and self.lane != "live":
            raise ValueError("look-ups are made in the live lane only, between calls: leave `lane` out, or `tools`")
        return self

    @model_validator(mode="after")
    def _agreement_is_told(self) -> ExtractionJob:
        if self.agreement == "never":
            return self
        if self.max_attempts == 1:
            raise ValueError("`agreement` asks a record a second time, and `max_attempts` is 1: raise that")
        if self.confidence == "never" and self.final is None and not self.high_accuracy:
            raise ValueError(
                "`agreement` is told by confidence, or to a final model: leave `confidence` never out, or it"
            )
        return self

    @model_validator(mode="after")
    def _packs_are_clear(self) -> ExtractionJob:
        if self.records_per_call > 1 and self.lane != "live":
            raise ValueError("several `records_per_call` are asked in the live lane only: leave `lane` out, or that")
        if self.records_per_call > 1 and self.examples is not None and self.examples_choice != "fixed":
            raise ValueError(
                "several `records_per_call` share their examples, and `similar` ones are chosen for one record: give "
                "`examples_choice` fixed"
            )
        return self

    @model_validator(mode="after")
    def _examples_are_clear(self) -> ExtractionJob:
        if self.examples_common and self.examples_choice == "fixed":
            raise ValueError(
                "`examples_choice` fixed shows every record the same examples already: leave `examples_common` out, and say "
                "how many with `examples_shown`"
            )
        return self

    @model_validator(mode="after")
    def _helpers_are_clear(self) -> ExtractionJob:
        if self.embedding_dimensions is not None and self.embedding_model is None:
            raise ValueError("`embedding_dimensions` needs an `embedding_model`")
        if self.embedding_model is None and self.rerank_model is None:
            return self
        named = "embedding_model" if self.embedding_model is not None else "rerank_model"
        if self.long_text == "whole":
            raise ValueError(f"`{named}` finds chunks of long records, and `long_text = whole` shows none")
        if self.lane != "live":
            raise ValueError(f"`{named}` works in the live lane only: leave `lane` out, or `{named}`")
        if self.runner == "dask":
            raise ValueError(f"`{named}` works on one machine only: leave `runner` out, or `{named}`")
        return self

    @classmethod
    def from_toml(cls, path: Path) -> ExtractionJob:
        """Read a job file. Raises ``OSError``, ``tomllib.TOMLDecodeError`` or pydantic's ``ValidationError``."""
        return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
