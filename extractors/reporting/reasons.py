"""What each reason of failure means and what to do next, as ``docs/failures.md`` says at length."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.outcomes import RETRYABLE, Reason


@dataclass(frozen=True, slots=True)
class Advice:
    """``options`` are those of ``quarry retry`` that may help; None where asking again is no use."""

    happened: str
    next: str
    options: str | None = None


ADVICE: dict[Reason, Advice] = {
    Reason.BAD_INPUT: Advice(
        "The record cannot be asked at all: a broken line, an empty text, bytes that are not UTF-8, a picture that "
        "cannot be read.",
        "Mend the source (the message names the place), then run the job again: only what changed is asked.",
    ),
    Reason.TOO_LONG: Advice(
        "The text is longer than the model reads.",
        "Run it again with --context-tokens, so that less of a long text is shown at a time (docs/long-text.md), split the "
        "record, or ask a model with a longer context.",
        "--model NAME",
    ),
    Reason.NOT_JSON: Advice(
        "Two answers in a row were no JSON object.",
        "Look at the raw answers below; another model, or another --mode in a new run, helps most.",
        "--model NAME",
    ),
    Reason.TRUNCATED: Advice(
        "The answer was cut off at the output limit, also with twice the room.",
        "Run the job with a higher --max-output-tokens, or make the schema smaller. What was whole is kept.",
    ),
    Reason.INVALID: Advice(
        "The answer was JSON but failed validation, and corrections did not mend it.",
        "Read the problems: where the text does not say what the schema asks for, make the field optional; else try "
        "a stronger model.",
        "--model NAME",
    ),
    Reason.UNGROUNDED: Advice(
        "A field that must have evidence has a value that does not stand in the record.",
        "Make the field optional, or look whether the model invents.",
        "--model NAME",
    ),
    Reason.REFUSED: Advice(
        "The provider's moderation or the model declined.", "Ask another model, or leave it.", "--model NAME"
    ),
    Reason.TIMED_OUT: Advice(
        "No whole answer came within --timeout, on every try.",
        "Retry; if it happens again, run with a longer --timeout.",
        "",
    ),
    Reason.UNAVAILABLE: Advice(
        "Rate limits, server errors or broken replies on every try.", "Retry when the provider is well again.", ""
    ),
    Reason.REJECTED: Advice(
        "The provider refused the request itself.",
        "The message is the provider's own; often a parameter that this model does not take.",
        "--model NAME",
    ),
    Reason.BUDGET: Advice(
        "The record used up --max-record-tokens.", "Run the job with a higher --max-record-tokens, then retry.", ""
    ),
    Reason.INTERNAL: Advice("A bug in Quarry.", "The trace is in the log; please report it, then retry.", ""),
}
_UNKNOWN = Advice("This version does not know the reason.", "The guide is docs/failures.md.", None)


def advice(reason: str) -> Advice:
    """The advice for a reason as the ledger names it."""
    return ADVICE[Reason(reason)] if reason in set(Reason) else _UNKNOWN


def may_pass(reason: str) -> bool:
    """Whether the same record asked again later may succeed."""
    return reason in set(RETRYABLE)
