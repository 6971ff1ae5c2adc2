"""Ranking by vectors, several rankers as one, and what a model that reads says."""

from __future__ import annotations

import numpy as np

from extractors.longtext.retrieval import Bm25, FieldQuery
from extractors.vectors.ranking import EmbeddingRanker, Fused, Known, Reranked, fused

QUERY = FieldQuery("price", "what it costs")
PASSAGES = ["the kettle is red", "you pay twelve dollars", "shipping costs nothing extra"]


def of(*values: float) -> bytes:
    return np.asarray(values, dtype="<f4").tobytes()


VECTORS = {QUERY.text: of(1, 0), PASSAGES[0]: of(0, 2), PASSAGES[1]: of(3, 0), PASSAGES[2]: of(1, 1)}


def test_vectors_find_what_words_do_not() -> None:
    [row] = EmbeddingRanker(VECTORS).scores([QUERY], PASSAGES)
    assert row == [0.0, 1.0, 0.707107]
    [words] = Bm25().scores([QUERY], PASSAGES)
    assert words[1] == 0


def test_a_text_without_a_vector_says_nothing() -> None:
    known = {text: vector for text, vector in VECTORS.items() if text != PASSAGES[1]}
    [row] = EmbeddingRanker(known).scores([QUERY], PASSAGES)
    assert row[1] == 0
    assert EmbeddingRanker({}).scores([QUERY], PASSAGES) == [[0, 0, 0]]
    assert EmbeddingRanker(VECTORS).scores([QUERY], []) == [[]]


def test_fusion_adds_the_reciprocal_ranks_of_those_who_say_something() -> None:
    # By words 0, 2, 1; by vectors 2, 0 (1 says nothing): 1/61 + 1/62 twice, then 1/63.
    assert fused([[9.0, 1.0, 5.0], [0.5, 0.0, 0.9]]) == [1.0, 1 / 3, 1 / 2]
    assert fused([[0.0, 0.0], [0.0, -1.0]]) == [0.0, 0.0]


def test_words_and_vectors_together() -> None:
    [row] = Fused([Bm25(), EmbeddingRanker(VECTORS)]).scores([QUERY], PASSAGES)
    assert sorted(range(3), key=lambda at: -row[at]) == [2, 1, 0]


def test_what_a_reading_model_said_goes_first_and_the_rest_keep_their_order() -> None:
    before = Known([QUERY], PASSAGES, [[3.0, 2.0, 1.0]])
    [row] = Reranked(before, {QUERY.text: {PASSAGES[2]: 0.2, PASSAGES[1]: 0.9}}).scores([QUERY], PASSAGES)
    assert row == [1 / 3, 1.0, 1 / 2]
    [untouched] = Reranked(before, {}).scores([QUERY], PASSAGES)
    assert untouched == [1.0, 1 / 2, 1 / 3]


def test_scores_that_were_told_are_those_of_their_field() -> None:
    other = FieldQuery("fee", QUERY.text)
    known = Known([QUERY, other], ["a", "b"], [[1.0, 2.0], [3.0, 4.0]])
    assert known.scores([other, QUERY], ["b", "a"]) == [[4.0, 3.0], [2.0, 1.0]]


def test_of_what_was_not_told_words_say_all() -> None:
    known = Known([QUERY], ["a"], [[1.0]])
    passages = ["it costs ten", "a", "b"]
    assert known.scores([QUERY], passages) == Bm25().scores([QUERY], passages)
    assert known.scores([QUERY], passages)[0][0] > 0
