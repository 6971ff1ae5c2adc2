"""A run's work on other machines: what one was answered before it was lost, another does not ask again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from extractors.endpoint import Settings
from extractors.engine import ChunkDone, Engine
from extractors.pipeline import run
from extractors.remote import Assignment, Session
from extractors.store.plan import Chunk
from extractors.store.store import Store
from tests.end_to_end.things import job_for, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen


def test_answers_that_came_after_a_worker_was_opened_are_found_by_it(tmp_path: Path) -> None:
    records = 20
    source = write_things(tmp_path / "things.jsonl", range(records))
    with FakeQwen(thing_answer, latency=0.05) as qwen:
        job = job_for(source, tmp_path / "out", qwen, chunk_size=records, concurrency=2)

        def conduct(engine: Engine, chunks: Iterator[Chunk], window: int) -> Iterator[ChunkDone]:
            store = cast(Store, engine.store)
            assignment = Assignment(job, engine.run_id, engine.recipe.id, store.kept, store.sequence)
            (chunk,) = chunks
            lost = Session(assignment, settings=Settings())
            working = threading.Thread(target=lost.answer, args=(chunk,))
            working.start()
            while qwen.count < records // 2 and working.is_alive():
                time.sleep(0.005)
            other = Session(assignment, settings=Settings())
            working.join()  # and what it made never arrives
            lost.close()
            answered = other.answer(chunk)
            other.close()
            assert answered.prepared is not None
            commit = store.keep(answered.prepared, run_id=engine.run_id, at=datetime.now(UTC))
            store.discard_journals(chunk)
            yield replace(answered.done, commit=commit)

        report = run(job, settings=Settings(), conduct=conduct)
        assert (report.rows, report.undone, report.replayed) == (records, 0, records)
        assert qwen.count == records, "what the lost worker had been answered was asked again"
