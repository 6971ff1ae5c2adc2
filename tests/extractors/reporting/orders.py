"""Orders with every kind of field and text that means to do harm, extracted for real by a fake model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from extractors.endpoint import Settings
from extractors.pipeline import run
from extractors.report import RunReport
from schemas.job import ExtractionJob
from tests.fakes.answers import record_of
from tests.fakes.qwen import FakeQwen, Fault


class Line(BaseModel):
    """One line of an order."""

    item: str
    quantity: int
    price: Decimal | None = Field(default=None, max_digits=8, decimal_places=2)


class Contact(BaseModel):
    """Who ordered."""

    name: str
    email: str | None = None


class Order(BaseModel):
    """What somebody ordered, when, and for how much.

    Take it from the message alone.
    """

    customer: str = Field(description="The customer's name as printed.")
    total: Decimal | None = Field(default=None, max_digits=10, decimal_places=2)
    placed: date | None = None
    paid: bool | None = None
    channel: Literal["shop", "phone", "web"] = "web"
    tags: list[str] = []
    lines: list[Line] = []
    contact: Contact | None = None
    big: int | None = None
    note: str | None = Field(default=None, alias="the/note")


SOURCES = {
    "plain": (
        "Ada Lovelace ordered 2 kettles at 12.50 each on 3 May 2026, 25.00 in all, paid.",
        {"customer": "Ada Lovelace", "total": 25.00, "placed": "2026-05-03", "paid": True, "channel": "shop",
         "tags": ["kettles"], "lines": [{"item": "kettles", "quantity": 2, "price": 12.50}],
         "contact": {"name": "Ada Lovelace", "email": None}, "big": 9007199254740993, "the/note": "each"},
    ),
    "astral": (
        "🛒🛒 Zoë 𝒜𝒷 orders a lamp 💡 for 7.25, e\u0301clair too",
        {"customer": "Zoë 𝒜𝒷", "total": 7.25, "tags": ["lamp", "e\u0301clair"], "the/note": "💡"},
    ),
    "invented": (
        "Grace orders one mirror.",
        {"customer": "Grace", "total": 99.99, "tags": ["carpet"], "lines": [{"item": "mirror", "quantity": 1}]},
    ),
    "overlap": (
        "Order of Linus Torvalds for Linus",
        {"customer": "Linus Torvalds", "the/note": "Torvalds", "contact": {"name": "Linus"}},
    ),
}  # fmt: skip
"""Record id -> (text, the model's answer)."""


def write_orders(path: Path, texts: Mapping[str, str]) -> Path:
    """A JSONL file of records."""
    path.write_text(
        "".join(json.dumps({"id": name, "text": text, "page": f"p. {name}"}) + "\n" for name, text in texts.items())
    )
    return path


def run_orders(source: Path, out: Path, answers: Mapping[str, Any], **options: Any) -> RunReport:
    """Extract orders; ``answers`` are by text: JSON, a raw reply, a fault, or a list of them in order."""
    waiting = {text: list(one) if isinstance(one, list) else one for text, one in answers.items()}

    def answer(body: dict[str, Any]) -> str | Fault:
        told = waiting.get(record_of(body), "I cannot say.")
        if isinstance(told, list):
            told = told.pop(0) if len(told) > 1 else told[0]
        return told if isinstance(told, str | Fault) else json.dumps(told)

    with FakeQwen(answer) as qwen:
        job = ExtractionJob.model_validate(
            {
                "source": str(source),
                "schema": "tests.extractors.reporting.orders:Order",
                "out": str(out),
                "id": "id",
                "keep": ["page"],
                "model": "qwen-plus",
                "base_url": qwen.base_url,
                "chunk_size": 5,
                **options,
            }
        )
        return run(job, settings=Settings())


def usual_orders(folder: Path, *, extra: Sequence[tuple[str, str, Any]] = (), **options: Any) -> Path:
    """The output of a run over ``SOURCES``, failures of three reasons, an identical record, and ``extra``
    (id, text, answer); gives the output folder."""
    texts = {name: text for name, (text, _) in SOURCES.items()}
    answers: dict[str, Any] = {text: answer for text, answer in SOURCES.values()}
    texts |= {"twin": texts["plain"], "prose": "Not an order at all.", "blank": "", "spoilt": "Order without a name."}
    answers["Order without a name."] = {"customer": 17, "total": "a lot", "lines": [{"item": "x", "quantity": "many"}]}
    texts["mended"] = "Alan orders 3 ladders."
    answers["Alan orders 3 ladders."] = ['{"customer": 5}', '{"customer": "Alan"}']
    for name, text, answer in extra:
        texts[name] = text
        answers[text] = answer
    run_orders(write_orders(folder / "orders.jsonl", texts), folder / "out", answers, **options)
    return folder / "out"


Orders = Callable[..., Path]
