"""Quarry's errors, split by who can fix it.

::

    QuarryError                 kind, retryable, exit_code
    ├── UserError               the person who runs it can fix it           exit 2
    │   ├── JobError            an option or the job file is wrong
    │   ├── SchemaError         a schema cannot be read or mapped
    │   ├── SourceError         a source cannot be read
    │   └── OutputError         the output folder cannot be used
    │       └── OutputBusy      another run holds it                        exit 3
    ├── ProviderError           the model's provider must act               exit 4
    │   ├── KeyRejected         401/403: the key or its account
    │   ├── ServerUnreachable   nothing answers at the address
    │   ├── ModelMissing        the model's weights or name are unknown
    │   └── BatchRefused        a batch as a whole was refused
    ├── BudgetReached           a ceiling stopped the run (not a failure)   exit 5
    ├── ApprovalNeeded          an estimate that nobody has approved         exit 6
    ├── Interrupted             somebody stopped it before it was done      exit 130
    └── InternalError           a bug of ours                               exit 70

Messages say what happened, to what, and what to do next. Failures of single records are not
exceptions: they are ``Failed`` outcomes in the ledger.
"""

from __future__ import annotations

from typing import Any


class QuarryError(Exception):
    """Base of every error that Quarry raises on purpose."""

    kind = "error"
    retryable = False
    exit_code = 1


class UserError(QuarryError):
    """Something that the person who runs Quarry can fix."""

    kind = "user"
    exit_code = 2


class JobError(UserError):
    """An option, a job file or a combination of options is wrong."""

    kind = "job"


class SchemaError(UserError):
    """A schema cannot be read, or holds a type that cannot become a Parquet column."""

    kind = "schema"


class SourceError(UserError):
    """A source is missing, empty of columns, or not what its format says."""

    kind = "source"


class OutputError(UserError):
    """The output folder cannot be written or is not Quarry's."""

    kind = "output"


class OutputBusy(OutputError):
    """Another run holds the output folder."""

    kind = "busy"
    retryable = True
    exit_code = 3


class ProviderError(QuarryError):
    """The run cannot go on until the model's provider, or its account, is set right."""

    kind = "provider"
    exit_code = 4


class KeyRejected(ProviderError):
    """The API key was refused."""

    kind = "key"


class ServerUnreachable(ProviderError):
    """Nothing answers at the model's address."""

    kind = "unreachable"
    retryable = True


class ModelMissing(ProviderError):
    """The model's name is unknown or its weights are not to be had."""

    kind = "model"


class BatchRefused(ProviderError):
    """The service took no batch: what it was to answer is undone."""

    kind = "batch"


class BudgetReached(QuarryError):
    """A ceiling was reached; what is undone stays undone. ``earlier`` holds the call's tries that failed before
    it (``CallError``), oldest first: they were made, and belong to the calls."""

    kind = "budget"
    exit_code = 5
    earlier: tuple[Any, ...] = ()


class ApprovalNeeded(QuarryError):
    """The estimate is above ``approve_above``, and it was not approved: just the sample was asked."""

    kind = "approval"
    exit_code = 6


class Interrupted(QuarryError):
    """Somebody stopped it before there was anything to tell: what was paid for is kept."""

    kind = "interrupted"
    exit_code = 130


class InternalError(QuarryError):
    """A bug in Quarry."""

    kind = "internal"
    exit_code = 70
