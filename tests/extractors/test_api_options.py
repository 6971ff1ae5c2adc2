"""The keywords that a type checker lets through are the job's fields."""

from __future__ import annotations

from extractors.api import Options
from schemas.job import ExtractionJob

OF_THE_CALL = {"source", "schema_spec", "out"}
"""What ``extract`` takes by its own names."""
OF_A_FLOW = {
    "engine", "runner", "dask_address", "dask_workers", "credentials", "rate_limit_name", "max_failure_rate",
}  # fmt: skip
"""What only Prefect reads."""


def test_every_field_of_a_job_is_an_option_of_extract() -> None:
    assert Options.__annotations__.keys() | OF_THE_CALL | OF_A_FLOW == ExtractionJob.model_fields.keys()
    assert not Options.__annotations__.keys() & (OF_THE_CALL | OF_A_FLOW)
