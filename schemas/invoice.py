"""An invoice with its parties and lines: nested models and a list of objects."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from schemas.printed import currency_code, printed_amount, printed_date

_ROUNDING = Decimal("0.01")
"""How far the sum of the lines may be from the subtotal, for each line: lines are rounded one by one."""

Money = Annotated[Decimal, Field(max_digits=14, decimal_places=2)]
Number = Annotated[Decimal, Field(max_digits=14, decimal_places=4)]
Amount = Annotated[Money | None, BeforeValidator(printed_amount)]
Quantity = Annotated[Number | None, BeforeValidator(printed_amount)]
PrintedDate = Annotated[date | None, BeforeValidator(printed_date)]

EXAMPLES: list[JsonValue] = [
    {
        "invoice_number": "2024-0117",
        "issue_date": "2024-05-02",
        "due_date": "2024-06-01",
        "supplier": {"name": "Holzwerk Brandt KG", "address": "Am Kai 9, 20457 Hamburg", "tax_id": "DE811234567"},
        "buyer": {"name": "Studio Mare", "address": "Via Roma 2, Genova", "tax_id": None},
        "currency": "EUR",
        "line_items": [
            {"description": "Oak shelf 120 cm", "quantity": "2", "unit_price": "140.00", "amount": "280.00"},
            {"description": "Delivery", "quantity": "1", "unit_price": "35.00", "amount": "35.00"},
        ],
        "subtotal": "315.00",
        "tax": "59.85",
        "total": "374.85",
    },
    {
        "invoice_number": "R/88",
        "issue_date": None,
        "due_date": None,
        "supplier": {"name": "Meera Textiles", "address": None, "tax_id": None},
        "buyer": None,
        "currency": "INR",
        "line_items": [{"description": "Cotton cloth", "quantity": None, "unit_price": None, "amount": "1200.00"}],
        "subtotal": None,
        "tax": None,
        "total": "1200.00",
    },
]


class Party(BaseModel):
    """A company or person on an invoice."""

    name: str = Field(min_length=1, description="Name as printed.")
    address: str | None = Field(default=None, description="Postal address as printed, lines joined; null if none.")
    tax_id: str | None = Field(default=None, description="VAT, GST or tax number as printed; null if none.")


class LineItem(BaseModel):
    """One line of an invoice."""

    description: str = Field(min_length=1, description="What is charged, as printed.")
    quantity: Quantity = Field(default=None, description="How many, as a plain number; null if not printed.")
    unit_price: Quantity = Field(default=None, description="Price of one, without currency; null if not printed.")
    amount: Amount = Field(default=None, description="Amount of the line, before tax; null if not printed.")


class Invoice(BaseModel):
    """An invoice: who bills whom for what.

    Amounts are plain numbers without currency signs. Each field is null when the invoice does not print it; sums are
    copied, not computed.
    """

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})

    invoice_number: str | None = Field(default=None, description="Number of the invoice, exactly as printed.")
    issue_date: PrintedDate = Field(default=None, description="Date of the invoice as YYYY-MM-DD.")
    due_date: PrintedDate = Field(default=None, description="Date by which it must be paid as YYYY-MM-DD.")
    supplier: Party | None = Field(default=None, description="Who sends the invoice and is paid.")
    buyer: Party | None = Field(default=None, description="Who receives the invoice and pays.")
    currency: Annotated[str | None, BeforeValidator(currency_code)] = Field(
        default=None,
        pattern=r"^[A-Z]{3}$",
        description="ISO 4217 code of the currency, three capital letters such as EUR.",
    )
    line_items: list[LineItem] = Field(
        default_factory=list, description="The lines in their order; not the subtotal, tax or total lines."
    )
    subtotal: Amount = Field(default=None, description="Sum of the lines before tax, as printed.")
    tax: Amount = Field(default=None, description="Total tax, as printed.")
    total: Amount = Field(default=None, description="Amount to pay, tax included, as printed.")

    @model_validator(mode="after")
    def _lines_make_the_subtotal(self) -> Self:
        amounts = [item.amount for item in self.line_items]
        known = [amount for amount in amounts if amount is not None]
        if self.subtotal is None or not known or len(known) < len(amounts):
            return self
        total = sum(known, Decimal(0))
        if abs(total - self.subtotal) > _ROUNDING * len(known):
            raise ValueError(
                f"the amounts of the {len(known)} line_items add up to {total}, but subtotal is {self.subtotal}: check for "
                "a missing or doubled line, an amount that includes tax, or a wrong subtotal; a value that is not printed "
                "is null"
            )
        return self
