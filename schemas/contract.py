"""A contract: its parties and dates, and the clauses that people look for, quoted word for word."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.receipt import PrintedDate
from schemas.verbatim import Verbatim

Clause = Annotated[str | None, Verbatim()]

EXAMPLES: list[JsonValue] = [
    {
        "parties": ["Nordlicht Mills GmbH", "Elia Imports Ltd"],
        "signed_on": "2018-03-12",
        "effective_on": "2018-04-01",
        "term": "This Agreement continues for two years.",
        "notice": "Either party may end it on ninety days' written notice.",
        "liability_cap": None,
        "governing_law": "This Agreement is governed by the law of Malta.",
    }
]


class Contract(BaseModel):
    """A contract between two or more parties.

    A clause is copied from the contract as it stands there, one sentence of it, and is null when the contract has none.
    Where each value stands (page, offsets, quote) is in the row's evidence.
    """

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})

    parties: list[str] = Field(description="Full names of the parties, as written, legal form included.")
    signed_on: PrintedDate = Field(default=None, description="Date on which the contract was made or signed.")
    effective_on: PrintedDate = Field(default=None, description="Date on which it comes into force or begins.")
    term: Clause = Field(default=None, description="The sentence that says how long the contract runs.")
    notice: Clause = Field(
        default=None, description="The sentence that says how much notice ends it or stops its renewal."
    )
    liability_cap: Clause = Field(default=None, description="The sentence that limits liability to an amount.")
    governing_law: Clause = Field(default=None, description="The sentence that names the law that governs it.")
