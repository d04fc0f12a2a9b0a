"""Sentences of `safetrain evaluate`."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "evaluate.no_questions": _("{path} holds no question."),
    "evaluate.bad_line": _(
        "{name}, line {line:int}: this is no question. A line has the keys question and answer, "
        "and match with one of exact, contains, number, choice, json, tool_call, pattern, "
        "similarity."
    ),
    "evaluate.leaked": _(
        "{count:int} questions of {path} stand in the training data, or nearly, so they tell "
        "nothing of what was learned. The first: {first}. Take them out, or name other questions "
        "with --questions."
    ),
    "evaluate.out_of_memory": _(
        "The evaluation ran out of memory. Close other programs, or give a smaller --max-tokens."
    ),
    "evaluate.died": _(
        "The evaluation ended without a word (exit code {code}, signal {signal}). Start it again: "
        "it goes on where it was."
    ),
}
