"""Several short records in one call: which ones, the question about them, and each one's share of the reply.

Pure. A share is a reply to the question that the record would have been asked alone, so that all that follows
(judging, correcting, evidence, routing) is as if it had been. A record that was left out of the reply, has its number
twice, or has a value that stands in another record of the pack and not, or only nearly, in its own, gets an ``UNANSWERED`` error for a
share, and is asked alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from extractors.examples import Example
from extractors.extraction import Extraction
from extractors.grounding import Haystack, ground
from extractors.longtext.begin import is_in_parts
from extractors.parsing import EXACT, dumps_exact, joined_keys, loads_exact, read_answer
from extractors.qwen.requests import CallError, ChatReply, ChatRequest, ErrorKind, Logprobs, Message
from extractors.recipe import Recipe
from extractors.second_look import is_choice
from extractors.tokens import estimate_tokens
from schemas.evidence import Match
from schemas.jsonschema import subschema
from schemas.ledger import CallRecord
from schemas.records import Record

SHORT = 400
"""Tokens of a record, estimated, above which it is asked alone."""
MOST = 2_000
"""Tokens of the records of a pack together, estimated; no more than half of what the model reads."""
_PRINTED = (Match.EXACT, Match.NORMALISED, Match.VALUE)
"""How a value stands in another record that it may have been taken from."""

UNSEEN = (
    "more than half of the schema's values are choices: where a model gives one record of a pack the choices of another, "
    "nothing shows it. Compare records_per_call with 1 on labelled records first (`quarry compare`)"
)
"""What packs of records cannot be told to have gone wrong in."""

_LOOSE = (Match.UNGROUNDED, Match.FUZZY)
"""How a value does not stand in its own record: the name of a namesake in the next one is nearly there."""


@dataclass(frozen=True, slots=True)
class Packable:
    """A record that may be asked beside others, and the digest of the question that it would be asked alone."""

    record: Record
    digest: str


@dataclass(frozen=True, slots=True)
class _Span:
    """A member of a JSON object: its key, and where its value stands in the text."""

    key: str
    start: int
    end: int


def packs(records: Sequence[Record], recipe: Recipe) -> list[tuple[int, ...]]:
    """The places of the records that are asked together, at most ``recipe.records_per_call`` in each pack, in their
    order. A record that is long, has pictures or cannot be read, and one that is left over, is in none."""
    found: list[tuple[int, ...]] = []
    open_ones: dict[tuple[Example, ...], tuple[list[int], int]] = {}
    room = min(MOST, recipe.policy.max_input_tokens // 2)
    for place, record in enumerate(records):
        if record.images or record.problem is not None or not record.text.strip():
            continue
        tokens = estimate_tokens(record.text)
        if tokens > min(SHORT, room) or is_in_parts(recipe, record.text):
            continue
        # A record is never shown an example that is nearly itself: it goes with those that are shown the same ones.
        shown, _ = recipe.shown(record)
        waiting, taken = open_ones.get(shown, ([], 0))
        if waiting and taken + tokens > room:
            found.append(tuple(waiting))
            waiting, taken = [], 0
        waiting.append(place)
        if len(waiting) == recipe.records_per_call:
            found.append(tuple(waiting))
            waiting, tokens = [], -taken
        open_ones[shown] = (waiting, taken + tokens)
    found += [tuple(waiting) for waiting, _ in open_ones.values()]
    return sorted(pack for pack in found if len(pack) > 1)


def records_together(recipe: Recipe, texts: Sequence[str]) -> float:
    """About how many records a call is about, as a sample of their texts has it: those of a pack share its prompt."""
    lengths = [estimate_tokens(text) for text in texts] if recipe.records_per_call > 1 else []
    short = [length for length in lengths if length <= SHORT]
    if not short:
        return 1.0
    room = min(MOST, recipe.policy.max_input_tokens // 2)
    pack = max(1.0, min(recipe.records_per_call, room * len(short) / max(1, sum(short))))
    return len(lengths) / (len(short) / pack + len(lengths) - len(short))


def is_mostly_choices(schema: Mapping[str, Any]) -> bool:
    """Whether more than half of the values of an answer are choices, which cannot be told from another record's."""
    choices = list(_choices(schema))
    return sum(choices) * 2 > len(choices)


def packable(recipe: Recipe, record: Record) -> Packable:
    """The record with the digest of its own first question. Raises ``ValueError`` for one that is asked nothing."""
    request = Extraction(recipe, record).next_request()
    if request is None:
        raise ValueError(f"record {record.record_id} is asked nothing")
    return Packable(record, request.digest())


def pack_request(recipe: Recipe, records: Sequence[Record]) -> ChatRequest:
    """One question about all of ``records``: the recipe's instructions, its examples as a pack of their own, the
    records."""
    prompter = recipe.prompter
    shown, _ = recipe.shown(records[0])
    turns: tuple[Message, ...] = ()
    if shown:
        answers = ",".join(f'"{number}":{example.answer}' for number, example in enumerate(shown, start=1))
        code = "".join(example.fingerprint for example in shown)
        turns = (
            prompter.pack([example.text for example in shown], code=code),
            Message("assistant", f"{{{answers}}}"),
        )
    code = recipe.id + "".join(record.fingerprint for record in records)
    alone = recipe.max_output_tokens
    return ChatRequest(
        model=recipe.policy.name,
        messages=(prompter.system, *turns, prompter.pack([record.text for record in records], code=code)),
        shape=recipe.pack_shape(len(records)),
        max_output_tokens=max(alone, min(alone * len(records), recipe.policy.max_output_tokens)),
        temperature=recipe.temperature,
        seed=recipe.seed,
        thinking=recipe.policy.thinking,
        thinking_budget=recipe.policy.thinking_budget,
        logprobs=recipe.policy.logprobs and recipe.confidence == "auto",
        of="" if prompter.codes else code,
    )


def shares(
    recipe: Recipe, records: Sequence[Record], request: ChatRequest, result: ChatReply | CallError
) -> list[ChatReply | CallError]:
    """What came of the question about ``records``, shared out: usage and latency add up to the call's own, and the
    tries that failed before it are the first record's."""
    pack = request.digest()
    found: list[ChatReply | CallError] = []
    values = {} if isinstance(result, CallError) else _values(result, len(records))
    mixed = _mixed_up(recipe, records, values)
    for place, usage in enumerate(result.usage.shared(len(records))):
        number = str(place + 1)
        common: dict[str, Any] = {
            "usage": usage,
            "latency": result.latency / len(records),
            "earlier": result.earlier if not place else (),
            "pack": pack,
        }
        if isinstance(result, CallError):
            found.append(replace(result, **common))
        elif number in values and number not in mixed:
            text, tokens = values[number]
            found.append(replace(result, text=text, finish_reason="stop", thinking="", logprobs=tokens, **common))
        else:
            what = "mixed this one up with another" if number in mixed else "left this one out"
            found.append(
                CallError(
                    ErrorKind.UNANSWERED,
                    f"the reply about {len(records)} records {what}: it is asked again alone",
                    result.model,
                    http_status=200,
                    body=(values[number][0] if number in values else result.text)[:2000],
                    started_at=result.started_at,
                    mode=result.mode,
                    **common,
                )
            )
    return found


def unread(result: ChatReply | CallError) -> CallError:
    """A reply out of which no shares can be made, as an error that cost the same."""
    return CallError(
        ErrorKind.UNANSWERED,
        "the reply about several records could not be read: they are asked alone",
        result.model,
        http_status=200,
        body=result.text[:2000] if isinstance(result, ChatReply) else result.body,
        latency=result.latency,
        usage=result.usage,
        started_at=result.started_at,
        earlier=result.earlier,
        mode=result.mode,
    )


def after_pack(result: ChatReply | CallError, share: CallError) -> ChatReply | CallError:
    """A record's own answer, with its share of the pack before it among the tries that failed."""
    return replace(result, earlier=(*share.earlier, replace(share, earlier=()), *result.earlier))


def with_packs(result: ChatReply | CallError) -> ChatReply | CallError:
    """The result as its record pays for it: with the shares of packs that did not answer it."""
    usage = result.usage
    for one in result.earlier:
        if one.pack is not None:
            usage += one.usage
    return result if usage is result.usage else replace(result, usage=usage)


def whole_calls(calls: Sequence[CallRecord]) -> list[CallRecord]:
    """The rows of calls with those of each pack taken together as one."""
    found: list[CallRecord] = []
    places: dict[str, int] = {}
    for call in calls:
        place = None if call.pack is None else places.setdefault(call.pack, len(found))
        if place is None or place == len(found):
            found.append(call)
            continue
        first = found[place]
        status = "ok" if "ok" in (first.status, call.status) else first.status
        found[place] = replace(first, status=status, latency=first.latency + call.latency)
    return found


def _values(reply: ChatReply, count: int) -> dict[str, tuple[str, Logprobs | None]]:
    """The answers in a reply under their numbers, each as it was written, with its tokens. A number that is there
    twice has none; in a reply that was cut off those before the cut count. Nothing for a reply that was refused, and for
    one with any other key than the numbers from 1 to ``count``: it may have counted from 0."""
    if reply.finish_reason in ("content_filter", "refusal"):
        return {}
    answer = read_answer(reply.text, finish_reason=reply.finish_reason)
    text = answer.json if answer.json is not None else reply.text if answer.truncated else ""
    offset = reply.text.find(text)
    found: dict[str, tuple[str, Logprobs | None]] = {}
    seen: set[str] = set()
    for member in _members(text):
        key = member.key.strip()
        if key in seen:
            found.pop(key, None)
        elif text[member.start] == "{":
            tokens = _tokens(reply, offset + member.start, offset + member.end) if offset >= 0 else None
            found[key] = (text[member.start : member.end], tokens)
        seen.add(key)
    return found if seen <= {str(number) for number in range(1, count + 1)} else {}


def _members(text: str) -> Iterator[_Span]:
    """The members of the JSON object ``text``, those that are whole where it was cut off. The reader of the standard
    library would keep the last of two equal keys, and not say where anything stands."""
    at = _after(text, 0, "{")
    while at is not None and text.startswith('"', at):
        try:
            key, colon = EXACT.raw_decode(text, at)
            start = _after(text, colon, ":")
            if start is None:
                return
            _, end = EXACT.raw_decode(text, start)
        except (ValueError, RecursionError):
            return
        yield _Span(key, start, end)
        at = _after(text, end, ",")


def _after(text: str, at: int, sign: str) -> int | None:
    """The place of what follows ``sign``, white space skipped; None where the sign does not stand there."""
    at = _past_space(text, at)
    return _past_space(text, at + 1) if text.startswith(sign, at) else None


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\n\r":
        at += 1
    return at


def _tokens(reply: ChatReply, start: int, end: int) -> Logprobs | None:
    """The tokens of a part of the reply's text, with their ends counted from its beginning in bytes."""
    if reply.logprobs is None:
        return None
    first = len(reply.text[:start].encode("utf-8", "replace"))
    last = first + len(reply.text[start:end].encode("utf-8", "replace"))
    ends, values, begin = [], [], 0
    for token_end, value in zip(reply.logprobs.ends, reply.logprobs.values, strict=True):
        if token_end > first and begin < last:
            ends.append(min(token_end, last) - first)
            values.append(value)
        begin = token_end
    return Logprobs(tuple(ends), tuple(values))


def _mixed_up(recipe: Recipe, records: Sequence[Record], values: Mapping[str, tuple[str, Logprobs | None]]) -> set[str]:
    """The numbers of the answers with a value that another record of the pack prints and their own does not, or only
    nearly. A choice among fixed values is rarely printed, and says nothing."""
    found: set[str] = set()
    texts: dict[int, Haystack] = {}

    def text_of(place: int) -> Haystack:
        return texts.setdefault(place, Haystack(records[place].text))

    for place in range(len(records)):
        number = str(place + 1)
        if number not in values:
            continue
        # Digits as they were written are no leaves that could be looked for.
        text = values[number][0]
        once = joined_keys(text) if recipe.shape.text_order else None
        data = json.loads(dumps_exact(loads_exact(once or text)))
        loose = {
            one.path for one in ground(data, text_of(place)) if one.match in _LOOSE and not _is_choice(recipe, one.path)
        }
        for other in range(len(records)) if loose else ():
            if other == place:
                continue
            printed = (one.path for one in ground(data, text_of(other)) if one.match in _PRINTED)
            if not loose.isdisjoint(printed):
                found.add(number)
                break
    return found


def _choices(schema: Mapping[str, Any]) -> Iterator[bool]:
    """Of each value that the schema describes, whether it is a choice."""
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    inner += [branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ()) if branch.get("type") != "null"]
    inner = [each for each in inner if isinstance(each, Mapping)]
    if is_choice(schema) or not inner:
        yield is_choice(schema)
        return
    for each in inner:
        yield from _choices(each)


def _is_choice(recipe: Recipe, path: str) -> bool:
    """Whether the value at a path is a choice; one at a path that the schema has not is none."""
    try:
        return is_choice(subschema(recipe.schema, path))
    except KeyError:
        return False
