"""The garbage collector during a run."""

from __future__ import annotations

import gc

from extractors.collector import older_objects_set_aside


def test_older_objects_are_set_aside_until_the_last_run_has_ended() -> None:
    assert gc.get_freeze_count() == 0
    with older_objects_set_aside():
        assert gc.get_freeze_count() > 0
        with older_objects_set_aside():
            assert gc.get_freeze_count() > 0
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_a_program_that_froze_its_objects_itself_finds_them_frozen_afterwards() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        # Frozen objects still die by their reference counts, a few of them here as well.
        with older_objects_set_aside():
            assert frozen - 100 < gc.get_freeze_count() <= frozen
        assert frozen - 100 < gc.get_freeze_count() <= frozen
    finally:
        gc.unfreeze()


def test_what_a_run_leaves_behind_is_still_collected() -> None:
    class Loop:
        def __init__(self) -> None:
            self.me = self

    with older_objects_set_aside():
        Loop()
        assert gc.collect() >= 1
