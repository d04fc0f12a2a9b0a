"""Sentences of `safetrain serve`, most of them read in the programs that ask it."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "serve.not_installed": _(
        "Serving needs {name}. Install it with: pip install 'safetrain[serve]'"
    ),
    "serve.token": _(
        "{variable} must hold at least {least:int} printable ASCII characters. Unset it to have a "
        "token made."
    ),
    "serve.unauthorized": _(
        "The token is missing or wrong. Send the one that `safetrain serve` printed as: "
        "Authorization: Bearer TOKEN"
    ),
    "serve.host": _("This server answers only at {address}."),
    "serve.no_route": _(
        "There is nothing at {path}. This server has /v1/models and /v1/chat/completions."
    ),
    "serve.method": _("{path} takes {allowed} alone."),
    "serve.model_unknown": _("There is no model {model} here; this server has {served}."),
    "serve.not_json": _("The body is not a JSON object."),
    "serve.missing": _("{field} is missing or empty."),
    "serve.unknown_field": _("{field} is not known here. Leave it out."),
    "serve.unsupported": _("{field} with that value is not possible here. Leave it out."),
    "serve.not_object": _("{field} must be an object."),
    "serve.not_text": _("{field} must be a text."),
    "serve.not_flag": _("{field} must be true or false."),
    "serve.not_integer": _("{field} must be a whole number from {low} to {high}."),
    "serve.text_alone": _("{field} is not text, and this model reads text alone."),
    "serve.role": _("{field} must be system, developer, user or assistant."),
    "serve.stop": _(
        "{field} must be one text, or a list of at most {most:int}, of 1 to {longest:int} "
        "{longest:|character|characters} each."
    ),
    "serve.full": _(
        "{count:int} {count:|question is|questions are} waiting already. Ask again in a moment."
    ),
    "serve.training": _(
        "Job {training} holds the GPU, so that this model cannot answer now. It can once the job "
        "has ended or is paused. Until then `safetrain serve`, without a job or a model, answers "
        "with the model in training."
    ),
    "serve.gpu_busy": _(
        "The GPU is in use, so that this model cannot answer now. Ask again later."
    ),
    "serve.interrupted": _(
        "The answer was cut: the training that gave it ended, or a job needs the GPU. Ask again."
    ),
}
