"""A shop's or restaurant's receipt."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from schemas.printed import printed_amount, printed_date

PrintedDate = Annotated[date | None, BeforeValidator(printed_date)]

EXAMPLES: list[JsonValue] = [
    {
        "company": "BAKERY NORDLICHT GMBH",
        "date": "2018-03-12",
        "address": "HAFENSTR. 4, 24103 KIEL",
        "total": "9.00",
    },
    {"company": "Taverna Elia", "date": None, "address": None, "total": "48.60"},
]


class Receipt(BaseModel):
    """A receipt: who was paid, when, where, how much.

    Each field is null when the receipt does not print it.
    """

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})

    company: str | None = Field(
        default=None,
        description="Full name of the company that issued the receipt, as printed, legal form included; usually the "
        "first line.",
    )
    date: PrintedDate = Field(
        default=None,
        description="Date of the receipt as YYYY-MM-DD. Printed dates are day first: 05/03/2018 is 2018-03-05.",
    )
    address: str | None = Field(
        default=None, description="Postal address of the company, as printed, its lines joined by spaces."
    )
    total: Annotated[Decimal | None, BeforeValidator(printed_amount)] = Field(
        default=None,
        max_digits=12,
        decimal_places=2,
        description="Total to pay, tax and rounding included, as a plain number such as 9.00; not the cash given, the "
        "change or a subtotal.",
    )
