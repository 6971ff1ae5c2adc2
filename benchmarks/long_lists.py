"""Lists from long texts: what 200 and 1,000 items cost in calls and tokens, and the CPU that a window takes.

A made-up model reads numbered items from the window that it is shown, forgets a tenth of them (seeded) and is cut off at its
output limit; its tokens are estimated. No network: the state machine, the merge and the evidence are measured, as
``time.process_time`` of everything but the model. Run: ``python -m benchmarks.long_lists`` (some seconds)
"""

from __future__ import annotations

import argparse
import time

from pydantic import BaseModel

from extractors.longtext.begin import begin
from extractors.longtext.many import window_tokens
from extractors.qwen.requests import ChatReply, Mode
from extractors.recipe import ModelPolicy, compile_recipe
from extractors.tokens import estimate_tokens
from schemas.job import ExtractionJob
from schemas.outcomes import Extracted
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage
from tests.fakes.listing import ListingModel, catalogue, name_of

POLICY = ModelPolicy("made-up", Mode.PROMPTED, None, max_input_tokens=6_000, max_output_tokens=8_192)


class Item(BaseModel):
    """What stands in a line."""

    name: str
    price: float


class Catalogue(BaseModel):
    """A long list."""

    items: list[Item]


def measure(count: int, *, forgets: float, output: int, counting: str) -> bool:
    """Print a line; whether the list came whole, in order and without repeats."""
    job = ExtractionJob.model_validate(
        {"source": "x", "schema": "x", "out": "x", "max_output_tokens": output, "count_lists": counting}
    )
    recipe = compile_recipe(job, Catalogue, POLICY)
    text = catalogue(count)
    record = Record("r", text, content_fingerprint(text))
    model = ListingModel(forgets=forgets, seed=count)
    spent = 0.0
    started = time.process_time()
    extraction = begin(recipe, record)
    calls = windows = 0
    while (request := extraction.next_request()) is not None:
        spent += time.process_time() - started
        calls += 1
        windows += request.purpose == "extract"
        words = [message.content for message in request.messages]
        said, why = model.answer(words[0], words[-1], request.max_output_tokens)
        usage = Usage(1, sum(estimate_tokens(each) for each in words), estimate_tokens(said))
        started = time.process_time()
        extraction.receive(ChatReply(said, why, usage, model="made-up"))
    spent += time.process_time() - started
    outcome = extraction.outcome
    found = [item.name for item in outcome.value.items] if isinstance(outcome, Extracted) else []  # type: ignore[attr-defined]
    whole = found == [name_of(n) for n in range(1, count + 1)]
    assert outcome is not None
    tokens = estimate_tokens(text)
    used = outcome.usage
    print(
        f"{count:>6,} {forgets:>7.0%} {output:>7,} {counting:>8} {windows:>8} {window_tokens(recipe):>7,} {calls:>6} "
        f"{tokens:>8,} {used.input_tokens:>8,} {used.input_tokens / tokens:>6.2f} {used.output_tokens:>8,} "
        f"{spent * 1e3 / windows:>9.1f} {len(found):>6,} {'yes' if whole else 'no':>6}"
    )
    return whole


def main() -> int:
    """Measure, print, and fail where a counted list is not whole."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(
        " items forgets  output counting  windows  tokens  calls     text    input  /text   output ms/window  found  whole"
    )
    measure(100, forgets=0.0, output=2_048, counting="auto")  # what is imported and compiled once
    fine = True
    for count in (200, 1_000, 5_000):
        for forgets, counting in ((0.0, "auto"), (0.1, "auto"), (0.1, "never")):
            whole = measure(count, forgets=forgets, output=2_048, counting=counting)
            fine = fine and (whole or counting == "never")
    fine = measure(1_000, forgets=0.1, output=512, counting="auto") and fine
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
