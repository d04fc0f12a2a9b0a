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
        "{count:int} {count:|question|questions} of {path} {count:|stands|stand} in the "
        "training data, or nearly, so {count:|it tells|they tell} nothing of what was "
        "learned. The first: {first}. Take {count:|it|them} out, or name other questions "
        "with --questions."
    ),
    "evaluate.out_of_memory": _(
        "The evaluation ran out of memory. Close other programs and try it again, or with a "
        "smaller --max-tokens."
    ),
    "evaluate.no_result": _(
        "The evaluation has ended and left no result ({path}). Start it again: it goes on where it "
        "was."
    ),
    "evaluate.given_up": _(
        "The training is done, and its evaluation has died twice, so it was left out. Try it alone "
        "with: safetrain evaluate {id}"
    ),
    "evaluate.no_harness": _(
        "--tasks needs lm-evaluation-harness, which is not installed where safetraind runs. "
        "Install it with: pip install 'safetrain[tasks]'"
    ),
    "evaluate.task_refused": _(
        "lm-evaluation-harness refuses {tasks}: {reason}. It lists its tasks with: lm_eval ls tasks"
    ),
    "evaluate.damaged": _(
        "The adapter is damaged: {looping:int} of {count:int} {count:|answer|answers} "
        "{looping:|runs|run} in a circle, and its predictions are {divergence} nats a token "
        "from the base's. The learning rate was too high: train with a quarter of it."
    ),
    "evaluate.damaged_answers": _(
        "The adapter is damaged: {looping:int} of {count:int} {count:|answer|answers} "
        "{looping:|runs|run} in a circle. The learning rate was too high: train with a quarter "
        "of it."
    ),
    "evaluate.one_answer": _(
        "The adapter gives one and the same answer to {times:int} of {count:int} "
        "{count:|question|questions}: {answer}. It has learned the form and not the facts: "
        "train for more epochs, or with a larger lora_rank on more layers."
    ),
    "evaluate.by_heart": _(
        "The adapter is overfitted: {repeated:int} of its {wrong:int} wrong "
        "{wrong:|answer|answers} {repeated:|is an answer|are answers} of the training data, "
        "word for word. Train for fewer epochs (early_stopping=2), or on more wordings of "
        "each fact."
    ),
    "evaluate.chose_adapter": _(
        "The questions asked here chose this adapter, so the score is too high. Ask others with "
        "--questions."
    ),
    "evaluate.left_out": _(
        "{count:int} {count:|question that chose this adapter is|questions that chose this adapter "
        "are} left out."
    ),
    "promote.live": _("Job {id} has not ended. Promote a checkpoint once it has."),
    "promote.not_evaluated": _(
        "The checkpoints of job {id} were not compared yet. Do it with: safetrain evaluate {id} "
        "--checkpoints"
    ),
}
