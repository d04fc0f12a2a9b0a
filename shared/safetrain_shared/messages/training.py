"""Sentences of a training run: notices, outcomes, questions to the model."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "train.resumed": _("Resumed from {checkpoint} at step {step:int}."),
    "train.checkpoint_damaged": _(
        "Checkpoint {checkpoint} is damaged ({reason}); the one before it is used."
    ),
    "train.checkpoint_unfinished": _(
        "Checkpoint {checkpoint} has no manifest that can be read, so it is not whole; the one "
        "before it is used."
    ),
    "train.checkpoint_withdrawn": _(
        "Checkpoint {checkpoint} is taken back, because its weights give no finite loss."
    ),
    "train.adapter_repaired": _(
        "The adapter was missing or not as it was saved; it was copied anew from {checkpoint}."
    ),
    "train.best_gone": _(
        "The best checkpoint ({checkpoint}) and its adapter are gone. The adapter is that of the "
        "last step, {newest}."
    ),
    "train.adapter_gone": _(
        "The training went to its end, but its adapter is not in {path} and could not be put back."
    ),
    "train.ranks_differ": _(
        "The ranks of this training no longer hold the same adapter at step {step:int}: they "
        "computed different numbers. Its last checkpoint is whole. If it happens again, train with "
        "one rank."
    ),
    "train.no_jaccl": _(
        "The MLX {version} of {machine} has no JACCL, which the host file jaccl.json asks for: its "
        "wheels for macOS 26.2 or later have. Remove that file beside the list of hosts: the "
        "training then goes by ssh."
    ),
    "train.ranks_sum": _(
        "One sum of {bytes:bytes} over the {ranks:int} ranks takes {seconds:num} s. A step alone "
        "was not measured, so no speed-up can be told."
    ),
    "train.ranks_speedup": _(
        "One sum of {bytes:bytes} over the {ranks:int} ranks takes {seconds:num} s, and a step "
        "alone {alone:num} s: {speedup:num} times as fast if each rank had a machine of its own."
    ),
    "train.ranks_too_slow": _(
        "{ranks:int} ranks would be slower than one: to add up {bytes:bytes} they take "
        "{seconds:num} s, and a step alone takes {alone:num} s. Raise gradient_accumulation, so "
        "that a step computes more, or train with one rank."
    ),
    "train.machines_speedup": _(
        "The machines are {speedup:num} times as fast together as {fastest} alone: it takes "
        "{alone:num} s for a step, {slowest} takes {share:num} s for its share, and one sum of "
        "{bytes:bytes} over all takes {seconds:num} s."
    ),
    "train.machines_too_slow": _(
        "Together the machines are no faster than {fastest} alone, which takes {alone:num} s for a "
        "step: {slowest} takes {share:num} s for its share, and one sum of {bytes:bytes} over all "
        "takes {seconds:num} s. Leave {slowest} out, take a faster link, or raise "
        "gradient_accumulation, so that a step computes more."
    ),
    "train.rank_left": _(
        "Another rank was asked to stop, or its machine is short of memory; saved at step "
        "{step:int}."
    ),
    "train.base_changed": _(
        "The model in {path} is not the one that this training began on ({files}). Put that back "
        "to go on from {checkpoint}, or train anew with --fresh."
    ),
    "train.best_damaged": _(
        "The best checkpoint, {checkpoint}, is damaged or gone; adapters/ stays as it is."
    ),
    "train.left_out": _(
        "{count:int} {count:|sample was|samples were} left out: {count:|its|their} whole answer "
        "lies beyond {length:int} tokens."
    ),
    "train.left_out_of_validation": _(
        "{count:int} validation {count:|sample was|samples were} left out: {count:|its|their} "
        "whole answer lies beyond {length:int} tokens."
    ),
    "train.no_evaluation": _(
        "No sample in {path} can be evaluated at {length:int} tokens: nothing is evaluated, and "
        "adapters/ holds the newest checkpoint."
    ),
    "train.non_finite_sample": _(
        "The loss was not a finite number at step {step:int}, because of the sample in line "
        "{line:int} of {path}: it fails with the base model too. The step was not applied. Correct "
        "or remove the sample, then submit again."
    ),
    "train.non_finite_weights": _(
        "The loss was not a finite number at step {step:int} (line {line:int} of {path}). The step "
        "was not applied. A learning rate that is too high is the likely cause: it was {rate:num}. "
        "Lower it and submit again with --fresh."
    ),
    "train.non_finite_validation": _(
        "The validation loss was not a finite number at step {step:int}, because of the sample in "
        "line {line:int} of {path}: it fails with the base model too. Correct or remove the "
        "sample, then submit again."
    ),
    "train.non_finite_evaluation": _(
        "The validation loss was not a finite number at step {step:int} (line {line:int} of "
        "{path}). A learning rate that is too high is the likely cause: it was {rate:num}. Lower "
        "it and submit again with --fresh."
    ),
    "train.bad_sample": _(
        "Line {line:int} of {path} holds no sample that can be trained. See why: "
        "safetrain validate {path}"
    ),
    "train.template_refuses": _(
        "The model's chat template refuses the sample in line {line:int} of {path} ({reason}). "
        "Correct or remove it, then submit again."
    ),
    "train.sample_differs": _(
        "{path}, line {line:int}: {cause}. Correct or remove the sample, then submit again."
    ),
    "train.rendered_otherwise": _("{path}, line {line:int} ({count:int} in all): {cause}."),
    "train.started_from": _("Starts from the adapter in {path}."),
    "train.other_adapter": _(
        "The adapter in {path} does not fit this model and these settings ({reason}). Give "
        "lora_rank, lora_layers and lora_targets as it was trained with."
    ),
    "train.from_the_beginning": _(
        "No checkpoint is whole any more: the training starts from the beginning."
    ),
    "train.stopped": _("Stopped at step {step:int}, with a checkpoint."),
    "run.unreadable": _("The files of the run in {path} cannot be read ({reason})."),
    "train.no_targets": _(
        "No layer of the model is called {targets}, so there is nothing to train. Leave "
        "lora_targets out, or name layers such as self_attn.q_proj."
    ),
    "train.dora_experts": _(
        "DoRA cannot be put on this model's experts. Choose fine_tune_type lora, or name other "
        "layers in lora_targets, such as self_attn.q_proj."
    ),
    "train.no_adapter": _("This model takes no adapter on the chosen layers: {reason}"),
    "train.impossible": _(
        "This model cannot be trained with these settings; a first short pass ended with: {reason}"
    ),
    "train.own_dropout": _(
        "This model has dropout of its own, with which gradient_checkpointing would give wrong "
        "gradients. Turn gradient_checkpointing off."
    ),
    "train.no_checkpointing": _(
        "Layers of this model hand on more than their result, so that gradient_checkpointing would "
        "give wrong gradients. Turn gradient_checkpointing off."
    ),
    "train.packing_unsupported": _(
        "In this model the samples of a packed row would see each other. Turn packing off."
    ),
    "train.no_samples": _("No sample in {path} can be trained at {length:int} tokens."),
    "train.overfits": _(
        "The validation loss rose from {best:num} at step {step:int} to {last:num}, while the "
        "training loss is {train:num}: the model learns the data by heart. adapters/ holds step "
        "{step:int}. Next time: --set num_epochs={epochs} or --set early_stopping=3"
    ),
    "train.overfits_base": _(
        "The validation loss is {last:num}, above the {base:num} before training, while the "
        "training loss is {train:num}: what is learned does not hold for the validation file. "
        "Train on more samples that are like it, or more gently: --set learning_rate={lower:num}"
    ),
    "train.too_hot": _(
        "After {step:int} {step:|step|steps} the validation loss is {last:num}, above the "
        "{base:num} before training, and the training loss is {train:num}: a learning rate "
        "of {rate:num} is too high. Lower it: --set learning_rate={lower:num}"
    ),
    "train.too_short": _(
        "The training ended while it still learned: the last evaluation brought the "
        "validation loss from {before:num} to {last:num} in {epochs:int} "
        "{epochs:|epoch|epochs}. Train longer: --set num_epochs={more}"
    ),
    "train.early_stop": _(
        "Stopped early: {count:int} {count:|evaluation|evaluations} brought no improvement."
    ),
    "train.all_answered": _(
        "Stopped early, with right answers to all {count:int} {count:|question|questions} asked "
        "for this. The verdict is on the others."
    ),
    "train.nothing_left": _(
        "Stopped early: with a validation loss of {loss:num}, nothing is left to learn."
    ),
    "train.paused": _("Paused at step {step:int}, with a checkpoint."),
    "train.segment": _(
        "A segment ended at step {step:int}, with a checkpoint: the GPU rests, then it goes on."
    ),
    "train.holding": _(
        "Other programs need memory (the training takes {footprint:bytes}, {swap:bytes} of swap "
        "are in use): holding until that has passed."
    ),
    "train.memory_short": _(
        "The system stayed short of memory: the training left it, with a checkpoint, and goes on "
        "when {needed:bytes} are free."
    ),
    "train.broke_off": _(
        "The system was critically short of memory in the middle of a step: the training left it "
        "and goes on from its last checkpoint when there is room."
    ),
    "train.disk_full": _("The disk is full: the run waits at its last checkpoint for room."),
    "train.disk_read_only": _(
        "The disk can only be read: the run waits at its last checkpoint until it can be written."
    ),
    "ask.busy_other_job": _(
        "Job {training} is training, so only it can answer now. Ask without --job, or add --wait."
    ),
    "ask.busy_other_model": _(
        "Job {training} is training, so only it can answer now. Ask without --model, or add --wait."
    ),
    "ask.busy_checkpoint": _(
        "Job {training} is training, so it answers with its weights as they are now. Ask without "
        "--checkpoint, or add --wait."
    ),
    "ask.busy_checking": _(
        "Job {training} is being checked and holds the GPU. Ask again once it trains, or add "
        "--wait."
    ),
    "ask.busy_evaluating": _(
        "Job {training} is an evaluation and holds the GPU. Ask again once it has ended, or add "
        "--wait."
    ),
    "ask.adapter_replaced": _(
        "{output} holds the training of job {other} by now, and job {id} has no adapter there."
    ),
    "ask.adapter_of_other_home": _(
        "{output} holds the training of job {id} of another home, {home}; job {id} of this home "
        "has no adapter there."
    ),
    "ask.no_adapter": _("Job {id} has no adapter yet."),
    "ask.base_only": _("There is no trained job yet: this is the base model's answer."),
    "ask.prompt_too_long": _(
        "The question has {tokens:int} {tokens:|token|tokens}; at most {limit:int} can be "
        "answered now."
    ),
    "ask.checkpoint_unknown": _("Job {id} has no checkpoint {checkpoint}."),
    "ask.malformed": _("That is no question a model can take: {field} is missing or wrong."),
    "ask.no_question": _("There is nothing to answer: the last turn must be the user's."),
    "ask.out_of_range": _("{field} must lie between {low} and {high}."),
    "ask.template_refuses": _(
        "This model's chat template does not take these turns: system first, then user and "
        "assistant in alternation."
    ),
    "ask.template_slow": _(
        "This model's chat template was still running after {seconds:int} s, so it cannot be asked."
    ),
    "ask.too_large": _("The model in {path} does not fit in this machine's memory."),
    "ask.worker_ended": _("The model was unloaded before it could answer; ask again."),
    "ask.failed": _("The model could not answer ({reason})."),
}
