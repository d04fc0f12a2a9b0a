"""Sentences of `safetrain diagnose`: what was found, and under `….fix` what to do about it."""

from safetrain_shared.i18n import marked as _

_LESS_MEMORY = _(
    "In this order: raise gradient_accumulation and lower batch_size in turn, shorten "
    "max_seq_length, lower lora_layers. Or let it be found: safetrain preflight"
)
_STEADIER = _(
    "Lower the learning rate (--set learning_rate={lower:num}), raise warmup_steps, and look at "
    "the data: safetrain validate"
)

SENTENCES: dict[str, str] = {
    "diagnosis.no_job": _("No job has run yet, so there is nothing to judge"),
    "diagnosis.no_job.fix": _("Begin with: safetrain preflight"),
    "diagnosis.not_judged": _("Nothing to judge yet"),
    # memory
    "diagnosis.memory_ran_out": _(
        "Job {id} ran out of memory ({count:int}×) and went on by itself with smaller steps "
        "(now batch_size {batch_size}, gradient_accumulation {gradient_accumulation})"
    ),
    "diagnosis.memory_ran_out.fix": _LESS_MEMORY,
    "diagnosis.memory_failed": _(
        "Job {id} ran out of memory ({count:int}×), and no smaller step was left to try "
        "(batch_size {batch_size}, max_seq_length {max_seq_length})"
    ),
    "diagnosis.memory_failed.fix": _(
        "Try it again with --allow-shorter, fewer lora_layers, or a smaller model; close other "
        "programs first"
    ),
    "diagnosis.memory_above_plan": _(
        "The training took {peak:bytes}, more than the {expected:bytes} that were planned"
    ),
    "diagnosis.memory_above_plan.fix": _(
        "Give it a margin, such as --memory-budget, and report it: safetrain diagnose --bundle FILE"
    ),
    "diagnosis.memory_fits": _("The training fits: {peak:bytes} at the peak of {budget:bytes}"),
    "diagnosis.memory_unknown": _("Job {id} has not logged a step yet"),
    # model
    "diagnosis.model_here": _("The model is here ({bytes:bytes}): {path}"),
    "diagnosis.model_to_download": _(
        "The model {name} is not on this machine yet; the first training downloads it, which is "
        "normal and may take minutes"
    ),
    "diagnosis.model_to_download.fix": _(
        "Nothing to do. To have it now: safetrain preflight; without a network: safetrain models "
        "list"
    ),
    # speed
    "diagnosis.speed_unknown": _("Job {id} has logged too few steps to judge its speed"),
    "diagnosis.speed_steady": _("The speed is steady: {now:speed} tokens per second"),
    "diagnosis.speed_dropped": _(
        "The speed fell from {before:speed} to {now:speed} tokens per second during the training"
    ),
    "diagnosis.speed_dropped.fix": _(
        "Close other heavy programs, look at memory pressure above, plug the machine in, and let "
        "it cool down"
    ),
    "diagnosis.speed_below_plan": _(
        "{now:speed} tokens per second, where {expected:speed} were measured before the training"
    ),
    "diagnosis.speed_below_plan.fix": _(
        "Close other heavy programs, plug the machine in; then measure again: safetrain preflight"
    ),
    "diagnosis.speed_quantized_on_cpu": _(
        "A quantized model is computed as it is on the CPU, which is many times slower than float32"
    ),
    "diagnosis.speed_quantized_on_cpu.fix": _("Use --set dequantize=true, if memory allows it"),
    "diagnosis.speed_room": _("There is room: {peak:bytes} of {budget:bytes} are used at the peak"),
    "diagnosis.speed_room.fix": _(
        "A larger micro-batch may be faster: --set batch_size={batch_size}; short samples train "
        "faster with --set packing=true"
    ),
    # loss
    "diagnosis.loss_too_early": _("Job {id} has logged too few losses to judge them"),
    "diagnosis.loss_falls": _("The training loss falls: {first:num} → {last:num}"),
    "diagnosis.loss_flat": _(
        "The training loss hardly falls ({first:num} → {last:num}) at a learning rate of {rate:num}"
    ),
    "diagnosis.loss_flat.fix": _(
        "Raise the learning rate (--set learning_rate={higher:num}), train longer (num_epochs), "
        "and look at the data: safetrain validate"
    ),
    "diagnosis.loss_diverged": _(
        "The training loss rose again from {lowest:num} to {last:num}, at a learning rate of "
        "{rate:num}"
    ),
    "diagnosis.loss_diverged.fix": _STEADIER,
    "diagnosis.loss_unsteady": _(
        "The training loss jumps from step to step (now {last:num}), at a learning rate of "
        "{rate:num}"
    ),
    "diagnosis.loss_unsteady.fix": _STEADIER,
    "diagnosis.loss_validated": _("The validation loss is at its best or near it ({best:num})"),
    # gpu
    "diagnosis.gpu_device": _("MLX computes on: {kind} ({name})"),
    "diagnosis.gpu_at_work": _("A training or an answer holds the GPU, so it was not tried"),
    # the report
    "diagnosis.bundle_taken": _("{path} is there already. Give another file: --bundle FILE"),
    # the self-test
    "selftest.gpu_busy": _(
        "The GPU is in use: by a training, or by a model kept ready for questions. Try again when "
        "it is free."
    ),
    "selftest.trained": _(
        "Trained a tiny model: {steps:int} {steps:|step|steps}, loss {first:num} → {last:num}"
    ),
    "selftest.not_learned": _(
        "The tiny model did not learn: {steps:int} {steps:|step|steps}, loss {first:num} → "
        "{last:num}"
    ),
    "selftest.not_trained": _("The tiny model could not be trained (state: {state})"),
    "selftest.peak_right": _("Peak memory {peak:bytes}, planned {planned:bytes}: {off:pct} off"),
    "selftest.peak_wrong": _(
        "Peak memory {peak:bytes}, planned {planned:bytes}: {off:pct} off, more than is expected"
    ),
    "selftest.resumed": _(
        "Killed the worker at step {step:int}; it went on by itself from step {resumed:int}"
    ),
    "selftest.not_resumed": _(
        "Killed the worker at step {step:int}; it did not go on from a checkpoint"
    ),
    "selftest.equal": _(
        "Equal to the bit with an undisturbed run: {steps:int} {steps:|loss|losses} and the "
        "adapter ({bytes:bytes})"
    ),
    "selftest.not_equal": _(
        "Not equal to an undisturbed run: {differing:int} of {steps:int} "
        "{steps:|loss|losses} {differing:|differs|differ}, or the adapter does"
    ),
    "selftest.not_deterministic": _(
        "Two undisturbed runs already differ ({differing:int} of {steps:int} "
        "{steps:|loss|losses}, or the adapter): this GPU itself is not deterministic. A "
        "resume restores all of the state here, and its result differs as much as any two "
        "runs do"
    ),
    "selftest.way": _("With {settings}:"),
    "selftest.no_real_model": _(
        "Not tried with a real model: the package index cannot be reached from here"
    ),
    "selftest.pressure": _("Memory pressure by the kernel: {level}, {swap:bytes} of swap in use"),
    "selftest.launchd": _("launchd answers, which starts the service at login"),
    "selftest.no_pressure": _("The kernel does not say how short of memory the machine is"),
    "selftest.no_launchd": _(
        "launchd does not answer, so nothing can start the service at login (over ssh it may not)"
    ),
    "selftest.not_awake": _("The sleep of an idle Mac could not be held off"),
    "selftest.awake": _("The sleep of an idle Mac can be held off"),
    # service
    "diagnosis.again": _("The same happened {count:int} {count:|time|times} in all"),
    "diagnosis.jobs_failed": _("Failed jobs: {count:int}. See them with: safetrain jobs"),
    "diagnosis.set_aside": _("Jobs that were set aside, unreadable: {count:int}"),
    "diagnosis.set_aside.fix": _(
        "Bring them back from the backup and their folders: safetraind stop, then safetraind "
        "restore, then safetraind start"
    ),
    "diagnosis.after_login": _(
        "After a restart of this Mac, jobs go on once you have logged in; nothing starts before"
    ),
    "diagnosis.not_at_login": _(
        "After a restart of this Mac, jobs wait until you have logged in and started safetraind"
    ),
    "diagnosis.not_at_login.fix": _("Start it at every login: safetraind install"),
    "diagnosis.service_well": _("safetraind {version} is well, and there is room on the disk"),
}
