"""Sentences about training files: problems by line, and summaries."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    # one line
    "data.not_utf8": _("Not valid UTF-8 at byte {byte:int} of the line"),
    "data.nul_byte": _("A NUL byte at byte {byte:int} of the line"),
    "data.not_json": _("Not valid JSON ({reason}, column {column:int})"),
    "data.not_an_object": _("Not a JSON object but {found}"),
    "data.unknown_format": _(
        'Neither "messages" nor "prompt" and "completion" nor "text" (keys: {keys})'
    ),
    "data.mixed_formats": _("A sample of another format ({found}) than the file's ({format})"),
    "data.line_too_long": _("The line is too long ({bytes:bytes}; at most {limit:bytes})"),
    "data.blank_line": _("A blank line"),
    "data.not_text": _('"{key}" is not a text but {found}'),
    "data.messages_not_a_list": _('"messages" is not a list but {found}'),
    "data.no_messages": _("A conversation without messages"),
    "data.message_not_an_object": _("Message {place} is not an object but {found}"),
    "data.unknown_role": _(
        'Message {place} has the role "{role}"; roles are system, user, assistant and tool'
    ),
    "data.role_not_text": _("The role of message {place} is not a text but {found}"),
    "data.calls_not_a_list": _(
        '"tool_calls" of message {place} is not a list of objects but {found}'
    ),
    "data.content_not_text": _("The content of message {place} is not a text but {found}"),
    "data.tools_not_a_list": _('"tools" is not a list of objects but {found}'),
    "data.role_order": _('Message {place} ({role}) may not follow "{before}"'),
    "data.role_first": _("Message {place} ({role}) may not come first"),
    "data.no_answer": _("A conversation without an answer of the assistant: nothing to learn"),
    "data.last_not_answer": _("The last message is not the assistant's ({role})"),
    "data.empty_answer": _("An empty answer"),
    "data.empty_text": _("An empty text"),
    "data.duplicate_key": _('The key "{key}" stands twice; only the last one counts'),
    "data.duplicate": _("The same sample as line {first:int}"),
    "data.leak": _("The same sample as line {other:int} of {file}"),
    "data.near_leak": _("Nearly the same sample as line {other:int} of {file}"),
    "data.json_document": _(
        "The file is one JSON document, not one sample a line. Write each sample on a line of its "
        "own, for instance with: jq -c '{filter}' '{path}' > samples.jsonl"
    ),
    "data.unlearned": _(
        "{count:int} {count:|answer is|answers are} not learned: {count:|its message "
        "says|their messages say} train: false, or weight: 0"
    ),
    "data.unlearned_in": _(
        "{name}: {count:int} {count:|answer is|answers are} not learned: {count:|its message "
        "says|their messages say} train: false, or weight: 0"
    ),
    "data.weight": _(
        '"{key}" of message {place} is {value}; only 0, 1, true and false mean something here'
    ),
    "data.foreign_key": _('The key "{key}" means something to other programs, and nothing here'),
    "data.foreign_key_of_message": _(
        'The key "{key}" of message {place} means something to other programs, and nothing here'
    ),
    "data.two_formats": _(
        'The line has the key "{key}" too; it is read as {form}, and that is unused'
    ),
    "data.bom": _("The file begins with a byte order mark, which is passed over"),
    "data.changing": _("The file changed while it was read; only what it held at first counts"),
    "data.not_listed": _("More than {limit:int} problems of one kind; the rest is only counted"),
    # what the model is given, against the line
    "data.calls_dropped": _(
        "The model's chat template leaves out the tool calls of message {place}, so they would not "
        "be learned. Choose a model whose template writes them, or remove them"
    ),
    "data.tools_dropped": _('The model\'s chat template leaves out the tool "{name}"'),
    "data.message_dropped": _(
        "The model's chat template leaves out or changes message {place} ({role})"
    ),
    "data.message_twice": _(
        "The model's chat template writes message {place} twice, so that more than the answers is "
        "learned"
    ),
    "data.reordered": _(
        "The model's chat template writes message {place} in front of the one before it, so that "
        "more than the answers is learned"
    ),
    "data.control_token": _(
        "Message {place} holds {token}, which the model does not read as text: it begins or ends a "
        "turn"
    ),
    "data.unknown_token": _(
        "The model's tokenizer does not know a part of this line; the model reads {token} in its "
        "place"
    ),
    "data.answer_dropped": _(
        "The model's chat template leaves out the answer in message {place}, so it is not learned"
    ),
    "data.answer_shortened": _(
        "The model's chat template leaves out a part of the answer in message {place}, such as "
        "earlier thinking; only the rest is learned"
    ),
    "data.thinking_stripped": _(
        "The model's chat template leaves out the thinking of message {place}, so with "
        "thinking=keep this answer is not learned. Where it is to be, let it be the last of a "
        "conversation"
    ),
    "data.thinking_added": _(
        "The model's chat template writes empty thinking before the answer in message {place}, and "
        "it would be learned. With --set thinking=drop the model is trained and asked without"
    ),
    "data.asked_otherwise": _(
        "When it is asked, the model's chat template begins the answer otherwise than in message "
        "{place} of the training, so that training and asking differ. Try --set thinking=drop or "
        "thinking=keep"
    ),
    "data.answer_not_learned": _("Nothing of the answer in message {place} is learned"),
    "data.nothing_learned": _("Nothing of the sample is learned"),
    "data.python_value": _(
        "The model's chat template writes a value of message {place} as Python does ({found}), not "
        "as text"
    ),
    "data.token_beyond": _(
        "The token {token} has the number {number:int}, and the model knows only {size:int} tokens "
        "(from 0). Tokenizer and model do not belong together; use the model's own tokenizer"
    ),
    "data.doubled_token": _("The token {token} would stand twice in a row; it is learned once"),
    "data.no_end": _(
        "No learned text ends with the token at which the model stops, so it will not learn to stop"
    ),
    "data.rendered_otherwise": _("{name}, line {line:int} ({count:int} in all): {cause}"),
    "data.no_chat_template": _(
        "The model has no chat template, which {name} needs. Use an instruct model, or text data "
        '(samples with the key "text")'
    ),
    "data.no_default_template": _(
        "The model has several chat templates ({names}) and none is called default. Use a model "
        'with one, or text data (samples with the key "text")'
    ),
    "data.all_lose": _(
        "At {length:int} tokens every sample of {name} loses its whole answer: nothing could "
        "be learned. The answers begin after {first:int} {first:|token|tokens} or more; "
        "raise max_seq_length"
    ),
    "data.beyond_positions": _(
        "{name}: {count:int} {count:|sample is|samples are} longer than the {positions:int} "
        "tokens that the model was made for (the longest has {longest:int}). Choose --set "
        "max_seq_length={positions} or less"
    ),
    "data.none_learns": _("Nothing of any sample in {name} is learned"),
    # whole files
    "data.not_read": _("The training files could not be inspected"),
    "data.inspection_died": _("The inspection of the training files broke off ({reason})"),
    "data.inspection_time": _(
        "The inspection of the training files was ended: for two minutes nothing came. The model's "
        "chat template or tokenizer may run without end"
    ),
    "data.inspection_memory": _(
        "The inspection of the training files was ended: it took more than 4 GiB of memory. The "
        "model's chat template or tokenizer may grow without end"
    ),
    "data.not_inspected": _(
        "The training files are large: they are read to their end when the job's turn comes"
    ),
    "data.train": _("Training file: {name} ({samples:int} {samples:|sample|samples})"),
    "data.valid": _("Validation file: {name} ({samples:int} {samples:|sample|samples})"),
    "data.same_file": _("{path} was named before, as {other}: the file is read once"),
    "data.partly_compared": _(
        "{path} is too large to be held: the next file is compared with its first "
        "{samples:int} {samples:|sample|samples}, for near-duplicates with {near:int} of them"
    ),
    "data.no_samples": _("{path} holds no sample that can be trained"),
    "data.good": _("Every line is in order"),
    "data.errors": _(
        "{name}: {count:int} {count:|error|errors}, the first in line {line}. See all of them "
        "with: safetrain validate {path}"
    ),
    "data.warnings": _(
        "{name}: {count:int} {count:|warning|warnings}, the first in line {line}. See all of "
        "them with: safetrain validate {path}"
    ),
    "data.template": _(
        "{name}: the model's chat template refuses {count:int} {count:|sample|samples}, the "
        "first in line {line:int} ({reason})"
    ),
    "data.no_tokenizer": _("The model's tokenizer cannot be loaded ({reason})"),
    "data.duplicates": _(
        "{name}: {count:int} {count:|sample appears|samples appear} more than once"
    ),
    "data.leaks": _(
        "{count:int} training {count:|sample is|samples are} also in the validation file: its loss"
        " will look too good"
    ),
    "data.near_leaks": _(
        "{count:int} training {count:|sample is nearly the same as a "
        "validation sample|samples are nearly the same as validation "
        "samples}"
    ),
    "data.lengths": _(
        "Lengths: median {median:int}, longest {longest:int} {longest:|token|tokens}"
    ),
    "data.lengths_drawn": _(
        "Lengths counted on {counted:int} of {samples:int} {samples:|sample|samples}, drawn "
        "at random"
    ),
    "data.would_cut": _(
        "At {length:int} tokens {cut:int} {cut:|sample|samples} would be cut, {lost:int} "
        "would lose {lost:|its|their} answer"
    ),
    "data.would_lose": _(
        "At {length:int} tokens {count:int} {count:|sample loses its|samples lose their} whole "
        "answer and {count:|is|are} left out"
    ),
}
