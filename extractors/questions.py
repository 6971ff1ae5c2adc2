"""The questions about one record: the first one, and each that may follow from an answer.

Every one begins with the same messages, the recipe's and then the record's, and adds lines after them.
"""

from __future__ import annotations

from collections.abc import Sequence

from extractors.continuation import Beginning, last_items
from extractors.examples import Example
from extractors.qwen.modes import within
from extractors.qwen.requests import AnswerShape, ChatRequest, Image, Message, Mode, Purpose
from extractors.qwen.span_grammar import span_rules
from extractors.recipe import Recipe
from schemas.outcomes import FieldProblem
from schemas.records import Record


class Questions:
    """Makes the requests about one record. ``last`` is the request whose answer a question follows from."""

    __slots__ = ("_code", "_images", "_recipe", "_record", "_spans", "_turns")

    def __init__(
        self, recipe: Recipe, record: Record, images: tuple[Image, ...], *, examples: Sequence[Example] = ()
    ) -> None:
        self._recipe = recipe
        self._record = record
        self._images = images
        self._code = recipe.id + record.fingerprint
        self._spans: dict[str, str] | None = None
        self._turns = tuple(turn for example in examples for turn in example.turns())

    def first(self) -> ChatRequest:
        """For the whole answer."""
        recipe = self._recipe
        return ChatRequest(
            model=recipe.policy.name,
            messages=self._with_examples(self._prompt()),
            shape=self._within(recipe.shape),
            max_output_tokens=recipe.max_output_tokens,
            temperature=recipe.temperature,
            seed=recipe.seed,
            thinking=recipe.policy.thinking,
            thinking_budget=recipe.policy.thinking_budget,
            logprobs=recipe.policy.logprobs and recipe.confidence == "auto",
        )

    def correction(self, last: ChatRequest, problems: Sequence[FieldProblem], shape: AnswerShape) -> ChatRequest:
        """For the failing paths only."""
        prompter = self._recipe.prompter
        messages = prompter.correct(self._record.text, problems, code=self._code, images=self._images)
        return self._next(last, Purpose.CORRECT, messages, shape)

    def rest(self, last: ChatRequest, start: Beginning, shape: AnswerShape, *, room: int) -> ChatRequest:
        """For what is missing of an answer that was cut off."""
        messages = self._recipe.prompter.rest(
            self._record.text,
            list(shape.schema["properties"]),
            done=start.done,
            last=last_items(start),
            code=self._code,
            images=self._images,
        )
        return self._next(last, Purpose.CONTINUE, messages, shape, room=room)

    def look(self, last: ChatRequest, shape: AnswerShape) -> ChatRequest:
        """For some fields, a second time."""
        fields = shape.schema["properties"]
        messages = self._recipe.prompter.look(self._record.text, fields, code=self._code, images=self._images)
        return self._next(last, Purpose.LOOK, messages, shape)

    def whole_again(self, last: ChatRequest, problem: str | None, *, room: int) -> ChatRequest:
        """For the whole answer again, saying what was wrong with the last one; None: it only ended too early."""
        messages = self._prompt()
        if problem is not None:
            messages = self._recipe.prompter.reask(self._record.text, problem, code=self._code, images=self._images)
        return self._next(last, Purpose.REASK, messages, self._recipe.shape, room=room)

    def _within(self, shape: AnswerShape) -> AnswerShape:
        """The shape with this record's spans in its grammar, where the recipe has verbatim fields."""
        if not self._recipe.verbatim or shape.mode is not Mode.GRAMMAR:
            return shape
        if self._spans is None:
            self._spans = span_rules(self._record.text)
        return within(shape, self._spans)

    def _with_examples(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages with the examples between the instructions and the record."""
        return (messages[0], *self._turns, *messages[1:]) if self._turns else messages

    def _prompt(self) -> tuple[Message, ...]:
        return self._recipe.prompter.extract(self._record.text, code=self._code, images=self._images)

    def _next(
        self,
        last: ChatRequest,
        purpose: Purpose,
        messages: tuple[Message, ...],
        shape: AnswerShape,
        *,
        room: int | None = None,
    ) -> ChatRequest:
        return ChatRequest(
            model=last.model,
            messages=self._with_examples(messages),
            shape=self._within(shape),
            purpose=purpose,
            attempt=last.attempt + 1,
            max_output_tokens=room or last.max_output_tokens,
            temperature=last.temperature,
            seed=last.seed,
            thinking=last.thinking,
            thinking_budget=last.thinking_budget,
            logprobs=last.logprobs,
        )
