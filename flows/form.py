"""``ExtractionJob`` as Prefect shows it: the form of ``schemas.form`` with the shipped schemas and models to choose from."""

from __future__ import annotations

from typing import Annotated

from pydantic import WithJsonSchema

from extractors.qwen.profiles import load_profiles
from schemas.form import form_schema
from schemas.job import ExtractionJob

SHIPPED = ("schemas.product:Product", "schemas.receipt:Receipt", "schemas.ticket:Ticket", "schemas.invoice:Invoice")


JobForm = Annotated[
    ExtractionJob,
    WithJsonSchema(
        form_schema(
            ExtractionJob.model_json_schema(by_alias=True),
            choices={"schema": SHIPPED, "model": load_profiles().offered()},
        ),
        mode="validation",
    ),
]
"""The one parameter of a flow."""
