"""The questions about one record: the first one, and each that may follow from an answer.

Every one begins with the same messages, the recipe's and then the record's, and adds lines after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from extractors.agreement import TEMPERATURE
from extractors.continuation import Beginning, last_items
from extractors.examples import Example, fewer
from extractors.qwen.modes import within
from extractors.qwen.requests import AnswerShape, ChatRequest, Image, Message, Mode, Purpose
from extractors.qwen.span_grammar import span_rules
from extractors.recipe import Recipe
from extractors.tools.words import Found, beside, block
from schemas.outcomes import FieldProblem
from schemas.records import Record


class Questions:
    """Makes the requests about one record: ``first`` are the examples that the first model is shown, ``last`` those of the
    final one. In its methods ``last`` is the request whose answer a question follows from."""

    __slots__ = (
        "_code",
        "_first",
        "_images",
        "_last",
        "_of",
        "_recipe",
        "_record",
        "_results",
        "_spans",
        "_spelt",
        "_text",
        "final",
    )

    def __init__(
        self,
        recipe: Recipe,
        record: Record,
        images: tuple[Image, ...],
        *,
        first: Sequence[Example] = (),
        last: Sequence[Example] = (),
    ) -> None:
        self._recipe = recipe
        self._text = self._spelt = record.text
        self._record = record.text if record.text and not record.text.isspace() else None
        self._images = images
        self._code = recipe.id + record.fingerprint
        # With a code around every record the words tell.
        self._of = "" if recipe.prompter.codes else self._code
        self._spans: dict[str, str] | None = None
        self._results = ""
        """What was looked up, as every question shows it behind the record."""
        self.final = False
        """Whether the final model is asked from now on."""
        self._first, self._last = tuple(first), tuple(last)

    def show(self, text: str, spelt: str) -> None:
        """From here on the record is shown as ``text``, parts of it; spans are copied from ``spelt``, the same parts
        without what was added to them."""
        self._text, self._spelt, self._spans = text, spelt, None

    @property
    def examples(self) -> tuple[Example, ...]:
        """What the model that is asked now is shown."""
        return self._last if self.final else self._first

    def with_fewer(self, refused: ChatRequest) -> ChatRequest:
        """A question that was too long with half of its examples, ``fewer``, as all questions to that model have from here
        on."""
        own = refused.messages[1 + 2 * len(self.examples) :]
        if self.final:
            self._last = fewer(self._last)
        else:
            self._first = fewer(self._first)
        messages = (refused.messages[0], *self._turns(), *own)
        return replace(refused, messages=messages, attempt=refused.attempt + 1)

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
            record=self._record,
            of=self._of,
        )

    def knowing(self, found: Sequence[Found]) -> None:
        """From here on each question shows what was looked up."""
        self._results = block(found, code=self._code) if found else ""

    def correction(self, last: ChatRequest, problems: Sequence[FieldProblem], shape: AnswerShape) -> ChatRequest:
        """For the failing paths only."""
        prompter = self._recipe.prompter
        messages = prompter.correct(self._text, problems, code=self._code, images=self._images)
        return self._next(last, Purpose.CORRECT, messages, shape)

    def rest(self, last: ChatRequest, start: Beginning, shape: AnswerShape, *, room: int) -> ChatRequest:
        """For what is missing of an answer that was cut off."""
        if start.closed:
            fields = shape.schema["properties"]
            messages = self._recipe.prompter.look(self._text, fields, code=self._code, images=self._images)
            return self._next(last, Purpose.CONTINUE, messages, shape, room=room)
        messages = self._recipe.prompter.rest(
            self._text,
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
        messages = self._recipe.prompter.look(self._text, fields, code=self._code, images=self._images)
        return self._next(last, Purpose.LOOK, messages, shape)

    def again(self, last: ChatRequest) -> ChatRequest:
        """The first question once more, the same words, for another answer: sampled, with another seed."""
        recipe = self._recipe
        return replace(
            self._next(last, Purpose.AGREE, self._prompt(), recipe.shape),
            temperature=max(recipe.temperature, TEMPERATURE),
            seed=((recipe.seed or 0) + 1) % 2**31,
            # It is compared, and never what a value's score is told of.
            logprobs=False,
        )

    def whole_again(self, last: ChatRequest, problem: str | None, *, room: int) -> ChatRequest:
        """For the whole answer again, saying what was wrong with the last one; None: it only ended too early."""
        messages = self._prompt()
        if problem is not None:
            messages = self._recipe.prompter.reask(self._text, problem, code=self._code, images=self._images)
        return self._next(last, Purpose.REASK, messages, self.whole, room=room)

    @property
    def whole(self) -> AnswerShape:
        """The shape of a whole answer of the model that is asked now."""
        final = self._recipe.final_shape
        return final if self.final and final is not None else self._recipe.shape

    def routed(self, last: ChatRequest, shape: AnswerShape) -> ChatRequest:
        """For some fields, or all, of the final model; it answers from here on."""
        self.final = True
        if shape.schema is self._recipe.shape.schema:
            return self._next(last, Purpose.ROUTE, self._prompt(), self.whole)
        fields = shape.schema["properties"]
        messages = self._recipe.prompter.look(self._text, fields, code=self._code, images=self._images)
        return self._next(last, Purpose.ROUTE, messages, shape)

    def handed_over(self, last: ChatRequest, problems: Sequence[FieldProblem], shape: AnswerShape) -> ChatRequest:
        """For the failing paths, of the final model."""
        self.final = True
        return replace(self.correction(last, problems, shape), purpose=Purpose.ROUTE)

    def _within(self, shape: AnswerShape) -> AnswerShape:
        """The shape with this record's spans in its grammar, where the recipe has verbatim fields."""
        if not self._recipe.verbatim or shape.mode is not Mode.GRAMMAR:
            return shape
        if self._spans is None:
            self._spans = span_rules(self._spelt)
        return within(shape, self._spans)

    def _with_examples(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages with the examples between the instructions and the record, and behind it what was looked up."""
        if self._results:
            messages = beside(messages, self._results)
        return (messages[0], *self._turns(), *messages[1:]) if self.examples else messages

    def _turns(self) -> tuple[Message, ...]:
        coded = self._recipe.prompter.codes
        return tuple(turn for example in self.examples for turn in example.turns(coded=coded))

    def _prompt(self) -> tuple[Message, ...]:
        return self._recipe.prompter.extract(self._text, code=self._code, images=self._images)

    def _next(
        self,
        last: ChatRequest,
        purpose: Purpose,
        messages: tuple[Message, ...],
        shape: AnswerShape,
        *,
        room: int | None = None,
    ) -> ChatRequest:
        final = self._recipe.policy.final if self.final else None
        return ChatRequest(
            model=last.model if final is None else final.name,
            messages=self._with_examples(messages),
            shape=self._within(shape),
            purpose=purpose,
            attempt=last.attempt + 1,
            max_output_tokens=room
            or (last.max_output_tokens if final is None else min(last.max_output_tokens, final.max_output_tokens)),
            temperature=last.temperature,
            seed=last.seed,
            thinking=last.thinking if final is None else final.thinking,
            thinking_budget=last.thinking_budget if final is None else final.thinking_budget,
            logprobs=last.logprobs if final is None else final.logprobs and self._recipe.confidence == "auto",
            record=self._record,
            of=self._of,
        )
