"""Sentences about settings: errors, and what each setting means for memory and speed."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "setting.unknown": _("There is no setting {name}. The settings are: {known}."),
    "setting.unknown_near": _(
        "There is no setting {name}. Did you mean {near}? All of them: safetrain explain"
    ),
    "setting.type": _("{name} cannot be {value}: give {kind}."),
    "setting.choice": _("{name} cannot be {value}: choose one of {choices}."),
    "setting.range": _("{name} cannot be {value:num}: it goes from {low:num} to {high:num}."),
    "setting.config_unreadable": _(
        "{path} is not a configuration that can be read ({reason}). Give a JSON or YAML file of "
        "settings, such as recommended_config.json."
    ),
    "setting.config_malformed": _(
        "{path} is not well-formed: see line {line:int}, column {column:int}. Give a JSON or YAML "
        "file of settings, such as recommended_config.json."
    ),
    "explain.batch_size": _(
        "Samples in a micro-batch: how many go through the model at once. More is faster and "
        "takes more memory, nearly in proportion."
    ),
    "explain.gradient_accumulation": _(
        "Micro-batches whose gradients are added up before one optimizer step. It raises the "
        "effective batch (batch_size × gradient_accumulation) at no cost in memory or speed; "
        "raise it before anything else when memory is short, and lower batch_size in turn."
    ),
    "explain.max_seq_length": _(
        "The longest sample in tokens; what lies beyond is cut. Memory and the time of a step "
        "grow with it. 128 is very short, 256 suits little memory, 512 most data."
    ),
    "explain.learning_rate": _(
        "How far a step moves the adapter. 0.0001 converges slowly, 0.0003 is a middle, 0.0005 is "
        "high and may become unstable. Neither memory nor speed change."
    ),
    "explain.num_epochs": _(
        "How many times each sample is seen. 3 is usual; more on little data learns it by heart. "
        "Memory stays the same; the time grows in proportion."
    ),
    "explain.max_steps": _(
        "Optimizer steps of the whole run, however many epochs they are; 0 leaves it to "
        "num_epochs. Memory stays the same; the time grows in proportion."
    ),
    "explain.warmup_steps": _(
        "Optimizer steps over which the learning rate rises from zero, against unsteadiness at "
        "the start. At most a tenth of the run is used. Neither memory nor speed change."
    ),
    "explain.save_steps": _(
        "Optimizer steps between checkpoints, counted inside the epoch. Each epoch's end and "
        "every ten minutes are saved as well. A checkpoint takes no memory and a moment of time."
    ),
    "explain.eval_steps": _(
        "Optimizer steps between evaluations on the whole validation file, counted inside the "
        "epoch. Each epoch's end is evaluated as well. An evaluation takes less memory than a "
        "step, and time: the more often, the longer the training."
    ),
    "explain.log_steps": _(
        "Optimizer steps between two lines of metrics. Neither memory nor speed change."
    ),
    "explain.seed": _(
        "Fixes the adapter's start, the order of the samples and dropout: the same seed gives the "
        "same run. Neither memory nor speed change."
    ),
    "explain.schedule": _(
        "How the learning rate goes on after warm-up: constant, linear to zero, or cosine to "
        "zero. Neither memory nor speed change."
    ),
    "explain.weight_decay": _(
        "How strongly AdamW pulls the adapter towards zero at each step. 0 is usual for LoRA. "
        "Neither memory nor speed change."
    ),
    "explain.max_grad_norm": _(
        "Gradients longer than this are shortened to it, against single bad batches. 0 turns it "
        "off. Neither memory nor speed change."
    ),
    "explain.fine_tune_type": _(
        "lora, or dora, which also learns the length of each weight column: a little better at "
        "low rank, slower and with more memory."
    ),
    "explain.lora_rank": _(
        "The width of the adapter. More can learn more and takes more memory: about three times "
        "its bytes again for gradients and optimizer. Speed hardly changes."
    ),
    "explain.lora_scale": _(
        "The factor on the adapter's output. 20 is mlx-lm's default; a larger one acts like a "
        "higher learning rate. Neither memory nor speed change."
    ),
    "explain.lora_dropout": _(
        "The share of the adapter's input that is dropped at random in training, against learning "
        "by heart on little data. Above 0 it takes a little more memory and time."
    ),
    "explain.lora_layers": _(
        "How many layers get an adapter, counted from the top; 0 means all. Layers below the "
        "first cost no activations, so fewer save much memory and time."
    ),
    "explain.lora_targets": _(
        "Which linear layers get an adapter, by name, such as self_attn.q_proj; empty means all "
        "of them. Fewer take less memory and are a little faster."
    ),
    "explain.mask_prompt": _(
        "Only the assistant's turns are learned, not the questions. Turn it off to learn the "
        "whole text. Neither memory nor speed change."
    ),
    "explain.packing": _(
        "Puts several short samples into one row, each seeing only itself. Faster on short "
        "samples, and no padding. Rows are as wide as nearly all samples need; longer ones have "
        "rows of their own. The memory is that of the widest row."
    ),
    "explain.gradient_checkpointing": _(
        "Keeps no activations and computes them again on the way back: much less memory, about a "
        "third more time."
    ),
    "explain.loss_chunk": _(
        "Tokens for which the loss is computed at a time; 0 means all at once. Saves memory where"
        " vocabulary × tokens is large, at nearly no cost in time."
    ),
    "explain.dequantize": _(
        "Computes with a float32 copy of a 4-bit model. On a CPU it is many times faster and "
        "takes eight times the model's memory; on Metal leave it off."
    ),
    "explain.keep_checkpoints": _(
        "How many of the last checkpoints stay on the disk. The best adapter is always kept. They "
        "take room on the disk; neither memory nor speed change."
    ),
    "explain.early_stopping": _(
        "Stops after this many evaluations in a row without a lower validation loss, or at once "
        "where nothing is left to learn: the loss is below 0.01, or at the end of an epoch half of "
        "the questions of --questions are all answered right. 0 turns it off. Memory and speed "
        "stay the same; the training may end sooner."
    ),
    "explain.eval_samples": _(
        "Evaluates on this many samples of the validation file, always the same ones; 0 means "
        "all. Fewer make an evaluation faster; memory stays the same."
    ),
    "explain.memory_high": _(
        "The share of the memory budget from which on the training gives its caches back after a "
        "step. Lower keeps the process smaller and makes steps a little slower."
    ),
    "explain.calm_seconds": _(
        "Seconds without memory pressure after which a training that was holding goes on. No "
        "effect on memory; it only costs time."
    ),
    "explain.hold_seconds": _(
        "Seconds a training holds under memory pressure before it saves a checkpoint and leaves "
        "the memory; it comes back by itself. Less gives the memory back sooner, at the cost of "
        "the time to load again."
    ),
    "explain.ignore_pressure": _(
        "Goes on whatever the system says of its memory, instead of holding and leaving when "
        "others need it. The machine may become slow, and a Mac may end programs."
    ),
    "explain.segment_minutes": _(
        "Trains in segments of so many minutes: at the end of each the training saves a "
        "checkpoint, its process ends, the GPU rests for rest_minutes, and it goes on exactly. 0 "
        "trains in one piece. The result is the same to the bit; memory at the peak is the same, "
        "and the training takes longer by the time of the rests and of loading again."
    ),
    "explain.pilot_minutes": _(
        "Minutes, before the training, for short runs on its own data at several learning rates: "
        "the one that learns best is used, and those that diverge are refused. 0: none are made, "
        "and the rate is that of the table. No effect where learning_rate is chosen. Memory stays "
        "the same; it takes that much time."
    ),
    "explain.rest_minutes": _(
        "Minutes between two segments (segment_minutes), in which nothing is computed and no "
        "memory is held. Longer rests only cost time."
    ),
    "explain.thinking": _(
        "What becomes of the thinking in answers, in training and whenever the model is asked "
        "afterwards: given leaves it to the data and the model's chat template, keep learns it and "
        "asks for it, drop takes it out and asks without. Shorter samples take less memory and "
        "time."
    ),
    "explain.ranks": _(
        "Processes that divide the samples of each optimizer step among them. Each holds the whole "
        "model, so it takes that many times the memory. On one machine they share one GPU, and are "
        "not faster: there it is for trying out."
    ),
    "explain.machines": _(
        "Other machines that divide the samples of each optimizer step with this one, by the names "
        "that safetrain hosts or ssh know. Each holds the whole model in its memory; what is "
        "summed up goes by ssh, which takes time."
    ),
    "explain.fewer_machines": _(
        "Whether a training that has a checkpoint goes on without machines that are away, instead "
        "of waiting for them. The effective batch stays, and so do memory and time of a sample; "
        "the result then differs by rounding."
    ),
}
