"""A support ticket: what a customer wrote, sorted for the people who answer."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue


class Category(StrEnum):
    """What the message is about."""

    BILLING = "billing"
    DELIVERY = "delivery"
    DEFECT = "defect"
    ACCOUNT = "account"
    QUESTION = "question"
    COMPLAINT = "complaint"
    OTHER = "other"


class Priority(StrEnum):
    """How soon somebody must look at it."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


def _address(value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    address = value.strip().removeprefix("mailto:")
    if not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+\.[^@\s<>.]{2,}", address):
        raise ValueError(
            f"{address[:60]!r} is not an e-mail address: copy the address alone, such as ana@example.org, or give null"
        )
    return address


EXAMPLES: list[JsonValue] = [
    {
        "subject": "Parcel arrived without the charger",
        "category": "delivery",
        "priority": "normal",
        "product": "Lumo E-Reader",
        "customer_name": "Ana Ruiz",
        "contact_email": "ana.ruiz@example.org",
        "order_number": "A-20417",
        "requested_action": "send the missing charger",
    },
    {
        "subject": "Cannot log in since this morning",
        "category": "account",
        "priority": "urgent",
        "product": None,
        "customer_name": None,
        "contact_email": None,
        "order_number": None,
        "requested_action": None,
    },
]


class Ticket(BaseModel):
    """One message from a customer to support.

    Take names, numbers and addresses from the message only, never from a quoted reply or a signature of the company.
    """

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})

    subject: str = Field(min_length=1, description="What it is about, in one short phrase in the message's language.")
    category: Category = Field(
        description="billing: invoices, refunds, charges; delivery: shipping, missing or wrong items; defect: broken or "
        "not working; account: login, password, personal data; question: asks how or whether; complaint: about people "
        "or service; other: none of these."
    )
    priority: Priority = Field(
        description="urgent: harm, legal threat or cannot work at all; high: deadline or several failed tries; low: no "
        "answer needed; else normal."
    )
    product: str | None = Field(default=None, description="Product or service named in the message; null if none.")
    customer_name: str | None = Field(default=None, description="Name of the person who writes; null if not given.")
    contact_email: Annotated[str | None, AfterValidator(_address)] = Field(
        default=None, description="E-mail address to answer to, exactly as written; null if not given."
    )
    order_number: str | None = Field(
        default=None, description="Order, invoice or contract number, exactly as written; null if not given."
    )
    requested_action: str | None = Field(
        default=None, description="What the customer asks for, in a few words; null if nothing is asked for."
    )
