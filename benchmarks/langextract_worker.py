"""LangExtract over one task's records, in the Python of a virtual environment of its own (it is no dependency here).

Reads one JSON object from standard input: url, model, prompt, most_tokens, examples and records. Writes a JSON line for
each record: what was extracted, tokens, calls, seconds. Set up as its documentation has it: a description, few-shot
examples, its OpenAI provider with schema constraints, one pass; a record is one chunk.
"""

import json
import sys
import time

import langextract as lx
import openai.resources.chat.completions as completions
from langextract import prompt_validation

USED = {"calls": 0, "input_tokens": 0, "output_tokens": 0}
CREATE = completions.Completions.create


def counted(self, **options):
    """The client's own call, with its usage added up: LangExtract does not tell it."""
    reply = CREATE(self, **options)
    USED["calls"] += 1
    USED["input_tokens"] += reply.usage.prompt_tokens
    USED["output_tokens"] += reply.usage.completion_tokens
    return reply


def main():
    """Extract record by record, so that what is done is written."""
    completions.Completions.create = counted
    task = json.load(sys.stdin)
    examples = [
        lx.data.ExampleData(
            text=one["text"],
            extractions=[
                lx.data.Extraction(extraction_class=name, extraction_text=text, attributes=attributes)
                for name, text, attributes in one["extractions"]
            ],
        )
        for one in task["examples"]
    ]
    config = lx.factory.ModelConfig(
        model_id=task["model"],
        provider="OpenAILanguageModel",
        provider_kwargs={"api_key": "none", "base_url": task["url"]},
    )
    for record in task["records"]:
        USED.update(calls=0, input_tokens=0, output_tokens=0)
        clock, error, found = time.perf_counter(), None, []
        try:
            document = lx.extract(
                text_or_documents=record["text"],
                prompt_description=task["prompt"],
                examples=examples,
                config=config,
                max_char_buffer=100_000,
                max_workers=1,
                temperature=0.0,
                language_model_params={"max_output_tokens": task["most_tokens"]},
                resolver_params={"suppress_parse_errors": False},
                prompt_validation_level=prompt_validation.PromptValidationLevel.OFF,
                show_progress=False,
            )
            found = [[e.extraction_class, e.extraction_text, e.attributes or {}] for e in document.extractions or []]
        except Exception as trouble:  # noqa: BLE001 - whatever it raises is a record without an answer
            error = f"{type(trouble).__name__}: {trouble}"[:300]
        line = {
            "id": record["id"],
            "extractions": found,
            "error": error,
            **USED,
            "seconds": time.perf_counter() - clock,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
