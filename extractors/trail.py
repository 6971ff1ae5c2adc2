"""What was asked about a record and what it used: the attempts of its ledger entry, and the ends of its patience."""

from __future__ import annotations

from extractors.qwen.requests import CallError, ChatReply, ChatRequest
from schemas.outcomes import Attempt
from schemas.usage import Usage


class Trail:
    """The attempts at one record, oldest first. ``limit`` is how many may be made, ``most_tokens`` how much they may
    use together (None: no limit)."""

    __slots__ = ("_most_tokens", "attempts", "givers", "limit", "usage")

    def __init__(self, *, limit: int, most_tokens: int | None) -> None:
        self.attempts: list[Attempt] = []
        self.givers: list[str] = []
        """Who gave answers, in order: the model of each call that brought one."""
        self.usage = Usage()
        self.limit = limit
        self._most_tokens = most_tokens

    @property
    def over_tokens(self) -> bool:
        """Whether the record used all the tokens that it may."""
        return self._most_tokens is not None and self.usage.total_tokens >= self._most_tokens

    def note(
        self,
        request: ChatRequest,
        reply: ChatReply | CallError,
        *,
        raw: str | None,
        error: str | None,
        used: bool = True,
    ) -> None:
        """Keep an answer, or the error in its place. ``used``: something of it is taken."""
        if used and isinstance(reply, ChatReply):
            self.givers.append(reply.model or request.model)
        self.attempts.append(
            Attempt(
                number=request.attempt,
                purpose=request.purpose.value,
                model=reply.model or request.model,
                raw=raw,
                finish_reason=reply.finish_reason if isinstance(reply, ChatReply) else None,
                input_tokens=reply.usage.input_tokens,
                output_tokens=reply.usage.output_tokens,
                error=error,
            )
        )

    def asked_for(self, purpose: str) -> bool:
        """Whether an attempt was made for this purpose."""
        return any(attempt.purpose == purpose for attempt in self.attempts)
