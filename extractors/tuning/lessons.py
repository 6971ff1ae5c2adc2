"""Labelled records as what a model is trained on: the tokens of its question, and those of the right answer.

The question is the recipe's first one, rendered by the weights' own chat template and cut into tokens by the embedded server
itself, so that a tuned model is trained on exactly what it will be asked. The answer is as an example shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from extractors.errors import JobError, ServerUnreachable
from extractors.examples import Example
from extractors.questions import Questions
from extractors.qwen.local_server import LocalServer
from extractors.qwen.vocabulary import read_head
from extractors.recipe import Recipe
from schemas.records import Record

FEWEST = 16
"""Labelled records that are needed at least: some to learn from, some to be held back."""
MOST_TOKENS = 2048
"""Tokens of a question with its answer, the common beginning apart, and of that: the memory of a step grows with the square
of both together."""
_END = "tokenizer.ggml.eos_token_id"


@dataclass(frozen=True, slots=True)
class Lesson:
    """One labelled record: the tokens that follow the common beginning, and those of the answer with its end."""

    question: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Question and answer."""
        return len(self.question) + len(self.answer)


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a model is trained on. ``prefix`` is the beginning that all questions share; ``too_long`` were left out."""

    prefix: tuple[int, ...]
    lessons: tuple[Lesson, ...]
    too_long: int


def lessons_of(
    recipe: Recipe, examples: Sequence[Example], weights: Path, *, watch: Callable[[int, int], None] | None = None
) -> Lessons:
    """The examples as lessons for the weights. ``watch`` is told (done, of) now and then.

    Raises ``JobError`` where too few of them are short enough, and for instructions that are too long; ``ServerUnreachable``
    where the weights cannot be served."""
    end = read_head(weights, (_END,)).get(_END)
    if end is None:
        raise JobError(f"{weights} does not say which token ends an answer: it cannot be tuned")
    asked: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    with LocalServer(weights, slots=1, context_per_slot=512) as server, _Tokens(server) as tokens:
        for number, example in enumerate(examples, start=1):
            messages = Questions(recipe, Record(str(number), example.text, example.fingerprint), ()).first().messages
            rendered = tokens.rendered([{"role": one.role, "content": one.content} for one in messages])
            asked.append((tokens.of(rendered, whole=True), (*tokens.of(example.answer), int(end))))
            if watch is not None:
                watch(number, len(examples))
    common = _common([question for question, _ in asked])
    lessons = [Lesson(question[common:], answer) for question, answer in asked]
    kept = tuple(one for one in lessons if one.tokens <= MOST_TOKENS)
    check_count(len(kept), f"{len(lessons) - len(kept):,} have more than {MOST_TOKENS:,} tokens with their answers")
    if common > MOST_TOKENS:
        raise JobError(
            f"the instructions with the schema's fields have {common:,} tokens, and tuning has room for {MOST_TOKENS:,}: fewer "
            "fields, or shorter descriptions"
        )
    return Lessons(asked[0][0][:common], kept, len(lessons) - len(kept))


def check_count(count: int, left_out: str) -> None:
    """Raises ``JobError`` for fewer records than can be learned from; ``left_out`` says why there are not more."""
    if count < FEWEST:
        others = f" ({left_out})" if left_out else ""
        raise JobError(
            f"tuning needs {FEWEST} labelled records or more, and there are {count} that can be used{others}"
        )


def _common(questions: Sequence[Sequence[int]]) -> int:
    """Tokens that all questions begin with; of each at least one is left."""
    most = min(len(one) for one in questions) - 1
    first = questions[0]
    return next(
        (place for place in range(most) if any(one[place] != first[place] for one in questions)),
        most,
    )


class _Tokens:
    """The embedded server's template and tokenizer (``/apply-template`` and ``/tokenize`` of llama.cpp's server)."""

    def __init__(self, server: LocalServer) -> None:
        self._http = httpx.Client(base_url=server.base_url.removesuffix("/v1"), trust_env=False, timeout=60)

    def __enter__(self) -> _Tokens:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def rendered(self, messages: Sequence[dict[str, Any]]) -> str:
        """The messages as the model reads them, up to where its answer begins."""
        return str(self._post("/apply-template", {"messages": list(messages)})["prompt"])

    def of(self, text: str, *, whole: bool = False) -> tuple[int, ...]:
        """The text's tokens, control tokens among them; of a ``whole`` prompt with what the weights want before it."""
        body = {"content": text, "add_special": whole, "parse_special": True}
        return tuple(self._post("/tokenize", body)["tokens"])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = self._http.post(path, json=body)
            reply.raise_for_status()
        except httpx.HTTPError as error:
            raise ServerUnreachable(
                f"the embedded server did not answer {path} ({error}): its weights may lack a chat template, or the machine memory"
            ) from error
        return dict(reply.json())


def steps_of(lessons: Sequence[Lesson], order: Sequence[int], *, room: int, answers: int) -> Iterator[list[Lesson]]:
    """The lessons in ``order``, as many together as have at most ``room`` tokens, ``answers`` of them in answers; one that has
    more is alone."""
    together: list[Lesson] = []
    for place in order:
        one = lessons[place]
        tokens = sum(each.tokens for each in together) + one.tokens
        said = sum(len(each.answer) for each in together) + len(one.answer)
        if together and (tokens > room or said > answers):
            yield together
            together = []
        together.append(one)
    if together:
        yield together
