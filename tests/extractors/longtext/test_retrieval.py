"""Which chunks are asked for: queries from the schema, BM25, and the share of each field."""

from __future__ import annotations

from extractors.longtext.choosing import chosen
from extractors.longtext.chunks import Chunk
from extractors.longtext.retrieval import Bm25, FieldQuery, field_queries, words_of

SCHEMA = {
    "properties": {
        "effective_date": {"type": ["string", "null"], "description": "When the contract takes effect."},
        "kind": {"enum": ["lease", "sale"]},
        "lines": {
            "type": "array",
            "items": {"properties": {"unitPrice": {"anyOf": [{"type": "number"}, {"type": "null"}]}}},
        },
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Words on the label."},
    }
}


def best(query: FieldQuery, passages: list[str]) -> str:
    (row,) = Bm25().scores([query], passages)
    return max(zip(row, passages, strict=True))[1]


def chunks(*tokens: int) -> list[Chunk]:
    return [Chunk(place + 1, place, place + 1, count) for place, count in enumerate(tokens)]


def test_every_value_of_the_schema_has_a_query_of_its_names_description_and_choices() -> None:
    queries = {query.path: query.text for query in field_queries(SCHEMA)}

    assert queries == {
        "effective_date": "effective_date When the contract takes effect.",
        "kind": "kind lease sale",
        "lines/*/unitPrice": "lines unitPrice",
        "tags": "tags Words on the label.",
    }


def test_the_instructions_are_a_query_of_their_own() -> None:
    assert field_queries(SCHEMA, instructions="Look at annex B.")[-1] == FieldQuery("", "Look at annex B.")


def test_a_date_an_amount_and_a_period_are_expected_where_the_field_says_so() -> None:
    shapes = {query.path: query.shapes for query in field_queries(SCHEMA)}

    assert shapes["effective_date"] == ("date",)
    assert shapes["lines/*/unitPrice"] == ("money", "number")
    assert shapes["tags"] == shapes["kind"] == ()


def test_words_are_folded_and_cut_so_that_their_forms_meet() -> None:
    assert words_of("The governing Laws") == words_of("governed LAW")


def test_chinese_is_indexed_by_pairs_of_characters() -> None:
    assert words_of("适用法律 law") == ["适用", "用法", "法律", "law"]
    passages = ["甲方应当付款。", "本合同适用中华人民共和国法律。", "乙方应当保守秘密。"]
    assert best(FieldQuery("law", "合同的适用法律"), passages) == passages[1]


def test_a_value_of_the_right_shape_is_found_without_a_common_word() -> None:
    passages = ["Mail goes to the office.", "Done on 3 May 2021.", "Nothing is owed.", "The end."]

    assert best(FieldQuery("signed", "signed", ("date",)), passages) == passages[1]


def test_a_query_of_which_nothing_is_known_says_nothing() -> None:
    assert list(Bm25().scores([FieldQuery("x", "zebra")], ["one", "two"])[0]) == [0.0, 0.0]


def test_every_field_gets_its_best_chunk_before_any_gets_its_second() -> None:
    loud, quiet = [0, 9, 0, 8, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0]

    shown = chosen(chunks(*[10] * 7), [loud, quiet], most_tokens=20, always=())

    assert [chunk.number for chunk in shown] == [2, 6]


def test_chunks_keep_the_texts_order_and_the_budget_with_the_lines_over_them() -> None:
    def shown(most: int) -> list[int]:
        found = chosen(chunks(*[10] * 7), [[1, 0, 0, 0, 0, 0, 9]], most_tokens=most, always=(0,), label=5)
        return [chunk.number for chunk in found]

    assert (shown(29), shown(30), shown(40)) == ([1, 2], [1, 7], [1, 6, 7])


def test_what_was_shown_before_is_not_shown_again() -> None:
    shown = chosen(chunks(*[10] * 4), [[9, 5, 1, 1]], most_tokens=10, always=(), without={1})

    assert [chunk.number for chunk in shown] == [2]
