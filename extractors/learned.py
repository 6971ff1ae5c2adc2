"""What models were seen to refuse, remembered between runs in one small JSON file.

A refusal costs one call and no record. The file spares the next run that call; it never decides what a
row means, so it takes no part in a recipe. A lesson is forgotten after 30 days, since models change, by
``quarry model forget``, or by deleting the file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

import orjson

from extractors.errors import OutputError
from extractors.qwen.requests import Mode
from extractors.store.files import make_folder, remove, write_whole

logger = logging.getLogger(__name__)

KEPT = timedelta(days=30)
_FORMAT = 1

Switch = Literal["omit", "on", "off"]
"""What to do with the thinking switch in place of what the profile says: never send it, or always this."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one model at one host refused, and when it was last seen. ``said`` are its own words."""

    refused: tuple[Mode, ...] = ()
    """Modes that it does not take."""
    refused_thinking: tuple[Mode, ...] = ()
    """Modes that it does not take while it thinks."""
    switch: Switch | None = None
    dated: str = ""
    said: str = ""

    def modes(self, *, thinking: bool) -> tuple[Mode, ...]:
        """The refused modes that matter to such a request."""
        return self.refused_thinking if thinking else self.refused

    def refusing(self, mode: Mode, *, thinking: bool) -> Lesson:
        """The lesson with one more refused mode."""
        if mode in self.modes(thinking=thinking):
            return self
        if thinking:
            return replace(self, refused_thinking=(*self.refused_thinking, mode))
        return replace(self, refused=(*self.refused, mode))


class Learned:
    """The lessons, by host and model. ``path=None``: for this process only."""

    def __init__(self, path: Path | None = None, *, today: Callable[[], date] = date.today) -> None:
        self.path = path
        self._today = today
        self._lessons: dict[tuple[str, str], Lesson] = self._read()

    def about(self, host: str, model: str) -> Lesson:
        """The lesson about a model, empty where there is none or it is too old."""
        return self._lessons.get((host, model), Lesson())

    def note(self, host: str, model: str, lesson: Lesson) -> None:
        """Remember a lesson, dated today. A file that cannot be written costs a warning and nothing else."""
        # Another run may have learned of other models meanwhile.
        self._lessons = {**self._read(), **self._lessons}
        self._lessons[host, model] = replace(lesson, dated=self._today().isoformat())
        self._write()

    def forget(self, model: str | None = None) -> int:
        """Forget a model at every host, or (None) all of them; gives how many lessons that were."""
        gone = [key for key in self._lessons if model is None or key[1] == model]
        for key in gone:
            del self._lessons[key]
        if gone:
            self._write()
        return len(gone)

    def __iter__(self) -> Iterator[tuple[str, str, Lesson]]:
        for (host, model), lesson in sorted(self._lessons.items()):
            yield host, model, lesson

    def _read(self) -> dict[tuple[str, str], Lesson]:
        if self.path is None:
            return {}
        try:
            data = orjson.loads(self.path.read_bytes())
            rows = [(row["host"], row["model"], _lesson(row)) for row in data["lessons"]]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s cannot be read (%s): what was learned of models is learned again", self.path, error)
            return {}
        oldest = (self._today() - KEPT).isoformat()
        return {(host, model): lesson for host, model, lesson in rows if lesson.dated >= oldest}

    def _write(self) -> None:
        if self.path is None:
            return
        rows = [
            {
                "host": host,
                "model": model,
                "refused": lesson.refused,
                "refused_thinking": lesson.refused_thinking,
                "switch": lesson.switch,
                "dated": lesson.dated,
                "said": lesson.said,
            }
            for host, model, lesson in self
        ]
        try:
            if not rows:
                remove(self.path)
                return
            make_folder(self.path.parent)
            write_whole(self.path, orjson.dumps({"format": _FORMAT, "lessons": rows}, option=orjson.OPT_INDENT_2))
        except (OSError, OutputError) as error:
            logger.warning("what was learned of a model is not remembered: %s", error)


def _lesson(row: Mapping[str, Any]) -> Lesson:
    switch = row.get("switch")
    if switch not in (None, "omit", "on", "off"):
        raise ValueError(f"{switch!r} is no switch")
    return Lesson(
        refused=tuple(Mode(mode) for mode in row["refused"]),
        refused_thinking=tuple(Mode(mode) for mode in row["refused_thinking"]),
        switch=switch,
        dated=str(row["dated"]),
        said=str(row.get("said", "")),
    )
