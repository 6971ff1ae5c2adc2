"""``quarry plan``: what a run would do and about what it would cost. Nothing is called."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from extractors.batch.purse import batch_pricing
from extractors.endpoint import Settings, resolve_endpoint
from extractors.longtext.begin import is_in_parts
from extractors.longtext.budget import budget_of, is_longer
from extractors.longtext.many import windows_of
from extractors.longtext.parts import parts_of
from extractors.packing import UNSEEN, is_mostly_choices, records_together
from extractors.pipeline import model_of
from extractors.prompting import fence
from extractors.qwen.prices import Pricing
from extractors.qwen.tool_calls import offered
from extractors.recipe import Recipe, compile_recipe
from extractors.sources import open_source
from extractors.store.catalog import mean_output_tokens
from extractors.store.objects import use_endpoint
from extractors.store.plan import Plan, PlanCounts
from extractors.store.store import read_keys_of
from extractors.tokens import estimate_tokens
from extractors.vectors.models import HelperModel
from extractors.vectors.preparing import chooses_chunks
from schemas.job import ExtractionJob
from schemas.usage import Usage

logger = logging.getLogger(__name__)

_SAMPLE = 200
_OVERHEAD = 16
"""Tokens that the chat template adds to a request, about."""
_CALLED = 30
"""Output tokens of a reply that calls a function, about."""
_PICTURE = 1_026
"""Tokens of a picture of a megapixel. Planning does not open pictures."""


@dataclass(frozen=True, slots=True)
class Context:
    """Tokens of the texts to ask, and how many of them the first calls show: less where ``focused`` texts are asked
    about their chunks. Scaled up from a sample where there are more than that."""

    record_tokens: int
    shown_tokens: int
    focused: int
    focused_tokens: int = 0
    """Tokens of the focused texts as they are, without those that are read window by window."""
    windows: int = 0
    """Windows in which the lists of long texts are read, each a call."""
    window_tokens: int = 0
    """Tokens of those windows together."""
    only_windows: int = 0
    """Texts of which nothing is asked but the items of their windows."""
    twice: int = 0
    """Texts that are asked their first question a second time, to see whether the answers agree."""
    twice_tokens: int = 0
    """Tokens of those together."""

    @classmethod
    def of(cls, texts: Sequence[Context], scale: float) -> Context:
        """All together, each for ``scale`` of its like."""
        return cls(*(round(sum(each) * scale) for each in zip(*map(astuple, texts), strict=True))) if texts else NOTHING

    @property
    def share(self) -> float:
        """Shown of all; 1 where there is nothing."""
        return self.shown_tokens / self.record_tokens if self.record_tokens else 1.0

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "record_tokens": self.record_tokens,
            "shown_tokens": self.shown_tokens,
            "share": round(self.share, 4),
            "focused": self.focused,
            "windows": self.windows,
            "window_tokens": self.window_tokens,
        }

    def lines(self) -> list[str]:
        """Nothing to say where every text is shown whole."""
        if not self.focused:
            return self._of_lists()
        few = (
            "1 long text is asked about its"
            if self.focused == 1
            else f"{self.focused:,} long texts are asked about their"
        )
        return [
            f"context: {self.shown_tokens:,} of the texts' {self.record_tokens:,} tokens are shown at first "
            f"({self.share:.0%}); {few} chunks (further looks not counted)",
            *self._of_lists(),
        ]

    def _of_lists(self) -> list[str]:
        if not self.windows:
            return []
        return [
            f"lists: read in about {self.windows:,} windows, {self.window_tokens:,} tokens together, with answers about as "
            "long (windows looked at again not counted)"
        ]


NOTHING = Context(0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Calls:
    """So many questions, with their tokens on average."""

    count: int
    input_tokens: float
    output_tokens: float

    def usage(self, pricing: Pricing) -> Usage:
        """Of all together. A price depends on the length of a call."""
        one = pricing.cost(Usage(1, round(self.input_tokens), round(self.output_tokens)))
        return Usage(
            self.count,
            round(self.count * self.input_tokens),
            round(self.count * self.output_tokens),
            cost=None if one is None else self.count * one,
        )


@dataclass(frozen=True, slots=True)
class Embedding:
    """What the chunks of the long texts cost to embed, where none of their vectors is kept yet."""

    model: str
    tokens: int
    cost: Decimal | None
    currency: str

    @classmethod
    def of(cls, model: HelperModel, context: Context) -> Embedding:
        """As many tokens as the texts have; the queries hardly count."""
        cost = model.pricing.cost(Usage(1, context.focused_tokens))
        return cls(model.name, context.focused_tokens, cost, model.pricing.currency)

    def as_dict(self) -> dict[str, Any]:
        """JSON values; cost as a string."""
        cost = None if self.cost is None else format(self.cost, "f")
        return {"model": self.model, "tokens": self.tokens, "cost": cost, "currency": self.currency}

    def line(self) -> str:
        """For people."""
        price = "price unknown" if self.cost is None else f"about {self.cost:.4f} {self.currency} besides"
        return (
            f"embeddings: about {self.tokens:,} tokens of long texts for {self.model}, less what is kept already and with "
            f"re-ranking not counted, {price}"
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """Counts, which are exact, and tokens and cost, which are not: they come from a sample of texts and
    from the output tokens of earlier calls of the recipe, or from the schema where there were none."""

    recipe: str
    model: str
    counts: PlanCounts
    to_ask: int
    input_tokens: int
    output_tokens: int
    cost: Decimal | None
    currency: str
    output_tokens_from: str
    context: Context
    """How much of the records' texts is sent."""
    final: str | None = None
    """The model that is asked about doubtful fields. How many there will be is not known."""
    embedding: Embedding | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON values; cost as a string."""
        counts = self.counts
        return {
            "recipe": self.recipe,
            "model": self.model,
            "records": counts.records,
            "skipped": counts.records - counts.new,
            "new": counts.new,
            "to_ask": self.to_ask,
            "merged": counts.merged,
            "duplicate_ids": counts.duplicate_ids,
            "problems": counts.problems,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost": None if self.cost is None else format(self.cost, "f"),
            "currency": self.currency,
            "output_tokens_from": self.output_tokens_from,
            "final": self.final,
            "asked_twice": self.context.twice,
            "context": self.context.as_dict(),
            "embedding": None if self.embedding is None else self.embedding.as_dict(),
        }

    def lines(self) -> list[str]:
        """The estimate for people."""
        counts = self.counts
        price = "price unknown" if self.cost is None else f"about {self.cost:.4f} {self.currency}"
        return [
            f"{counts.records:,} records = {counts.records - counts.new:,} already done + {counts.new:,} to do",
            f"{self.to_ask:,} to ask of {self.model}; {counts.merged:,} answered by an identical record; "
            f"{counts.problems:,} that cannot be asked",
            f"about {self.input_tokens:,} input and {self.output_tokens:,} output tokens "
            f"(output from {self.output_tokens_from}; corrections{' and the final model' if self.final else ''} "
            f"not counted), {price}",
            *self.context.lines(),
            *self._agreement(),
            *(() if self.embedding is None else (self.embedding.line(),)),
            f"recipe {self.recipe}",
        ] + ([f"{counts.duplicate_ids:,} records share their id with an earlier one"] if counts.duplicate_ids else [])

    def _agreement(self) -> list[str]:
        if not self.context.twice:
            return []
        return [f"agreement: {self.context.twice:,} are asked a second time, which is counted"]


def estimate(job: ExtractionJob, *, settings: Settings | None = None) -> Estimate:
    """Plan without calling, writing or locking anything. Raises the errors of ``extractors.errors``."""
    endpoint = resolve_endpoint(job, settings or Settings.from_environment())
    recipe = compile_recipe(job, model_of(job), endpoint.policy)
    use_endpoint(job.out, job.s3_endpoint)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quarry-plan-")))
        source = stack.enter_context(open_source(job))
        keys = read_keys_of(job.out, name=recipe.name, recipe_id=recipe.id)
        plan = stack.enter_context(Plan.make(source, keys, scratch=scratch, chunk_size=job.chunk_size))
        counts = plan.counts
        texts = plan.sample(_SAMPLE)
    to_ask = counts.distinct
    context = _context(recipe, texts, to_ask)
    together = records_together(recipe, texts)
    if together > 1 and is_mostly_choices(recipe.schema):
        logger.warning("%s", UNSEEN)
    seen = mean_output_tokens(job.out, name=recipe.name, recipe=recipe.id[:8])
    pricing = endpoint.pricing
    if job.lane != "live":
        pricing = batch_pricing(pricing, endpoint.profile.batch_price)
    calls = _calls(recipe, context, to_ask, seen=seen, together=together)
    usage = sum((each.usage(pricing) for each in calls), Usage())
    helper = endpoint.helpers.embedding
    return Estimate(
        embedding=None if helper is None else Embedding.of(helper, context),
        recipe=recipe.id[:8],
        model=endpoint.model,
        counts=counts,
        to_ask=to_ask,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost=usage.cost,
        currency=endpoint.pricing.currency,
        context=context,
        final=None if endpoint.final is None else endpoint.final.model,
        output_tokens_from=("earlier calls of this recipe" if seen is not None else "the schema")
        + ("" if recipe.tools is None else ", and a look-up for each record"),
    )


def _calls(recipe: Recipe, context: Context, to_ask: int, *, seen: float | None, together: float) -> Iterator[_Calls]:
    """What is asked about ``to_ask`` texts: first questions, the same once more, look-ups, windows. ``seen`` are the output tokens of a record
    on average, those of all its calls; ``together``: about so many records share a call."""
    first = to_ask - context.only_windows
    each = context.shown_tokens / first if first else 0.0
    prefix: float = estimate_tokens(recipe.prompter.system.content) + estimate_tokens(fence("", code="")) + _OVERHEAD
    prefix += recipe.examples.tokens if recipe.examples is not None and recipe.policy.tuned is None else 0
    prefix += _PICTURE if recipe.policy.images is not None else 0
    # What was seen is of all calls about a record, and is counted with the first.
    said = to_ask * seen / (first or context.windows or 1) if seen is not None else _output_of(recipe)
    yield _Calls(first, prefix / together + each, said)
    if context.twice:
        # Each by itself, of a pack too.
        shown = context.twice_tokens / context.twice
        yield _Calls(context.twice, prefix + shown, said if seen is None else 0)
    if recipe.tools is not None:
        # Two rounds: one that asks for a look-up, and one that says that it was enough.
        yield _Calls(2 * to_ask, each + _asking_tokens(recipe), _CALLED if seen is None else 0)
    if context.windows:
        read = context.window_tokens / context.windows
        # A list's answer is about as long as what it is taken from.
        listed = read if seen is None else 0.0 if first else said
        yield _Calls(context.windows, read + _window_prompt(recipe), listed)


def _context(recipe: Recipe, texts: Sequence[str], to_ask: int) -> Context:
    """What ``to_ask`` texts of which these are a sample send."""
    return Context.of([_sent(recipe, text) for text in texts], to_ask / len(texts) if texts else 0.0)


def _sent(recipe: Recipe, text: str) -> Context:
    """What one text sends."""
    tokens, budget = estimate_tokens(text), budget_of(recipe, text)
    windows = windows_of(recipe, text) if is_in_parts(recipe, text) and is_longer(recipe, text) else ()
    read = sum(estimate_tokens(window.of(text)) for window in windows)
    parts = parts_of(recipe)
    if windows and parts is not None and parts.rest is None:
        return Context(tokens, 0, 0, windows=len(windows), window_tokens=read, only_windows=1)
    twice = recipe.agreement == "always" and budget is None and not is_in_parts(recipe, text)
    return Context(
        tokens,
        tokens if budget is None else min(tokens, budget),
        int(budget is not None),
        0 if budget is None or chooses_chunks(recipe, text) is None else tokens,
        len(windows),
        read,
        twice=int(twice),
        twice_tokens=tokens if twice else 0,
    )


def _window_prompt(recipe: Recipe) -> int:
    """Tokens of a question about a window, without the window's own."""
    parts = parts_of(recipe)
    asked = recipe if parts is None else parts.window
    return estimate_tokens(asked.prompter.system.content) + estimate_tokens(fence("", code="")) + _OVERHEAD


def _asking_tokens(recipe: Recipe) -> int:
    """Tokens of a question that asks for look-ups, without the record's own."""
    if recipe.tools is None or recipe.asking is None:
        return 0
    return estimate_tokens(recipe.asking.content) + estimate_tokens(str(offered(recipe.tools.specs))) + _OVERHEAD


def _output_of(recipe: Recipe) -> float:
    """A guess from the schema alone: keys and punctuation, and 8 tokens a value."""
    keys = estimate_tokens(" ".join(_keys(dict(recipe.schema))))
    return keys * 1.5 + 8 * max(1, len(_keys(dict(recipe.schema))))


def _keys(schema: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, inner in schema.get("properties", {}).items():
        found += [name, *_keys(inner)]
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += _keys(schema[key])
    for branch in schema.get("anyOf", ()):
        found += _keys(branch)
    return found
