"""The header, and how it was made."""

from __future__ import annotations

import shlex

import orjson

from extractors.reporting.markup import Markup, data, tag
from extractors.reporting.sections.parts import folded, section
from extractors.reporting.sections.story import Story


def header(story: Story) -> Markup:
    """What the report is about, and what else the folder holds."""
    scope = story.scope
    document = scope.document
    about = str(document["schema"].get("description") or "").split("\n\n")[0]
    latest = scope.latest or {}
    shown = f"run {scope.run}" if scope.run else "all runs so far: the current rows and the open failures"
    facts = [
        ("schema", data(scope.name)),
        ("recipe", tag("code", None, scope.recipe)),
        ("model", data(latest.get("model") or document["model"]["name"])),
        ("shown", shown),
        ("chosen", scope.why),
        ("made", story.made_at),
    ]
    others = tag(
        "details", {"class": "others"},
        tag("summary", None, f"The folder holds {len(scope.others)} more: how to report them"),
        tag("ul", None, [tag("li", None, tag("code", None, f"quarry report {story.out} --schema {shlex.quote(name)} --recipe {recipe}")) for name, recipe in scope.others]),
    )  # fmt: skip
    return tag(
        "header", {"class": "top"},
        tag("p", {"class": "brand"}, "Quarry report"),
        tag("h1", None, data(scope.name)),
        tag("p", {"class": "lead"}, data(about)) if about else None,
        tag("dl", {"class": "facts"}, [tag("div", None, tag("dt", None, name), tag("dd", None, value)) for name, value in facts]),
        others if scope.others else None,
    )  # fmt: skip


def recipe(story: Story) -> Markup:
    """Enough to do it again: prompt, schema, job."""
    document = story.scope.document
    job = (story.scope.latest or {}).get("job") or {}
    given = {key: value for key, value in job.items() if value not in (None, "", [], False)}
    return section(
        "recipe", "How it was made",
        tag("p", {"class": "explain"}, "The recipe is what a row means: schema, prompt, model policy. Its id is ",
            tag("code", None, str(document.get("id", story.scope.recipe))), ". The folder is ", tag("code", None, data(str(story.scope.out))), "."),
        folded("The prompt", str(document["prompt"]["system"])),
        folded("The schema", orjson.dumps(document["schema"], option=orjson.OPT_INDENT_2).decode()),
        folded("Model policy", orjson.dumps({key: document.get(key) for key in ("model", "corrections", "evidence")}, option=orjson.OPT_INDENT_2).decode()),
        folded("The latest run's job", orjson.dumps(given, option=orjson.OPT_INDENT_2).decode()) if given else None,
    )  # fmt: skip
