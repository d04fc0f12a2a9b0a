"""Sentences of errors that the client finds by itself, before or without a daemon."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "client.broken": _(
        "Something went wrong in safetrain itself ({reason}). To see where, set SAFETRAIN_DEBUG=1."
    ),
    "client.not_utf8": _("{text} is not text in UTF-8, so it cannot be passed on. Rename it."),
    "client.tensorboard_missing": _(
        "To report to TensorBoard, its library is needed: pip install 'safetrain[tensorboard]'"
    ),
    "config.ignored": _("{name} in the configuration is passed over: it has no counterpart here."),
    "config.schedule": _(
        "Of lr_schedule.arguments the first is the learning rate; whatever the others say, the "
        "rate ends at zero with the last step here."
    ),
    "config.no_folder": _(
        "There is no folder {path}, which the configuration names as its data. It should hold "
        "train.jsonl and valid.jsonl."
    ),
    "config.alpha": _(
        "lora_parameters.alpha {alpha:num} at rank {rank:int} is a scale of {scale:num}."
    ),
    "config.start_adapter": _("The training starts from the adapter in {path}."),
    "config.not_training": _(
        "The configuration says train: false, which is passed over: this is a training."
    ),
    "config.group": _("{name} cannot be {value}: it is a group of names with values below it."),
    "config.foreign": _(
        "{name} in the configuration is no key of safetrain or mlx-lm; here it is {ours}. Rename "
        "it, or take it out."
    ),
    "config.doubled": _("{path} has the key {name} twice. Keep one of them."),
    "config.rising": _(
        "lr_schedule.arguments {arguments} is a learning rate that rises, which is not here. Give "
        "the highest rate, and a warmup."
    ),
    "config.type": _("{name} cannot be {value}."),
    "config.optimizer": _(
        "The optimizer {name} is not here; safetrain trains with AdamW. In the configuration, "
        "choose one of {known}."
    ),
    "config.data_set": _(
        "{data} names a data set of the hub. Make training files of it with: safetrain prepare "
        "hf:{data} --output FOLDER. Then name that folder."
    ),
    "client.no_validation": _(
        "There is no validation data beside {path}. Give it with --valid, or keep a tenth of the "
        "samples for it with --split."
    ),
    "client.no_training_data": _(
        "There is no training data: give it with --train, or name a file or a folder."
    ),
    "client.split_and_valid": _(
        "{path} is validation data already. Leave out --split, or the validation data."
    ),
    "client.split_share": _("{share:num} is no share of the samples, such as 0.1."),
    "client.data_twice": _("The training data is named twice: {data} and --train {train}."),
    "client.no_train_in_folder": _(
        "There is no train.jsonl in {path}. Make it of what you have with: safetrain prepare"
    ),
    "client.no_sample": _("There is no training data in {path}. Give it with --train and --valid."),
    "client.no_current_folder": _("The current folder was deleted. Go to another one with: cd"),
    "client.set_form": _("{text} is not of the form KEY=VALUE, as in --set num_epochs=3."),
    "client.size_form": _("{text} is not an amount of memory, such as 6GB or 800MB."),
    "client.time_form": _("{text} is not a time, such as 2min or 90s."),
    "client.size_too_small": _(
        "{text} is too little memory to train in. Give the amount with its unit, as in {amount}GB."
    ),
    "client.default_data": _(
        "No data was named: training with {train} and validating with {valid}. Your own: --train "
        "and --valid."
    ),
    "client.sample_data": _(
        "No data was named: training with the sample that comes with safetrain, questions and "
        "answers about Sporting Clube Farense. Your own: --train and --valid."
    ),
    "client.quote_the_question": _(
        'A question of several words stands in quotes: safetrain ask "{text}"'
    ),
    "path.empty": _("A path is empty. Name a file or a folder."),
    "client.dashboard_missing": _(
        "The live page needs {name}. Install it with: pip install 'safetrain[dashboard]'"
    ),
    "client.outdated": _(
        "The running safetraind ({daemon}) no longer takes the call {feature} of this safetrain "
        "({own}). Upgrade this safetrain, then run the command again."
    ),
    "client.port_taken": _(
        "Port {port} is taken by another program. Name another with --port, or 0 for any."
    ),
    "client.port_refused": _("Port {port} cannot be used here ({reason}). Name another: --port."),
    "client.question_empty": _("The question is empty."),
    "daemon.refused": _("{sentence}"),  # said by safetraind, in the user's language already
    "daemon.silent": _("safetraind did not answer within {seconds:time}. Its log is in {log}."),
    "plot.not_installed": _(
        "To draw pictures, matplotlib is needed: pip install 'safetrain[plots]'"
    ),
    "plot.nothing_yet": _("Job {id} has not logged a step yet, so there is nothing to draw."),
}
