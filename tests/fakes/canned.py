"""One answer for everyone, as finished bytes: nothing is parsed, nothing is built, for benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fakes.asked import PATHS, Dialect, read
from tests.fakes.play import answer
from tests.fakes.told import Reply, tell


@dataclass(frozen=True, slots=True)
class Canned:
    """The bytes of one answer in every dialect, whole and streamed."""

    whole: dict[Dialect, bytes]
    streamed: dict[Dialect, bytes]

    @classmethod
    def of(cls, text: str, *, tokens: tuple[int, int, int, int] | None = None, piece: int = 16) -> Canned:
        """``tokens`` is (input, output, cached, reasoning); streamed deltas are ``piece`` characters long."""
        reply = Reply(text, tokens=tokens or (100, len(text) // 4 + 1, 0, 0))
        found: list[dict[Dialect, bytes]] = [{}, {}]
        for streamed, made in enumerate(found):
            for dialect in PATHS.values():
                body = {"stream": bool(streamed), "stream_options": {"include_usage": True}, "parameters": _NATIVE}
                asked = read(dialect, body, {"x-dashscope-sse": "enable"} if streamed else {})
                plan = answer(asked, tell(asked, reply), reply, size=piece)
                made[dialect] = b"".join(data for _, data in plan.steps)
        return cls(*found)

    def reply(self, head: bytes, body: bytes) -> bytes:
        """The bytes for a request, by its path and by whether it asks for a stream."""
        target = head[: head.index(b"\r\n")]
        if b"/chat/completions" in target:
            return self.streamed["chat"] if b'"stream":true' in body else self.whole["chat"]
        if b"/responses" in target:
            return self.streamed["responses"] if b'"stream":true' in body else self.whole["responses"]
        dialect: Dialect = "multimodal" if b"/multimodal-generation/" in target else "text"
        streamed = b"x-dashscope-sse: enable" in head.lower()
        return self.streamed[dialect] if streamed else self.whole[dialect]


_NATIVE = {"result_format": "message", "incremental_output": True}
