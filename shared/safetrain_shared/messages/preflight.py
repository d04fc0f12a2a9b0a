"""Sentences of the checks and of the recommendation."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "check.skipped": _("Not checked: {check}, because this failed: {needs}"),
    # hardware
    "hardware.apple_silicon": _("Apple Silicon ({chip}) detected"),
    "hardware.rosetta": _(
        "This Python runs under Rosetta, where MLX cannot reach the GPU. Install a native arm64 "
        "Python and install safetrain with it"
    ),
    "hardware.intel_mac": _("This Mac has no Apple Silicon ({chip}), which MLX needs"),
    "hardware.other": _("No Apple Silicon: {chip}, {system}. Training is possible, and slower"),
    "hardware.memory": _("Memory: {available:bytes} available"),
    "hardware.memory_short": _(
        "Memory: only {available:bytes} of {total:bytes} available, at least {least:bytes} are "
        "needed. Close other applications"
    ),
    "hardware.memory_limit": _("A control group allows {limit:bytes} of memory"),
    "hardware.memory_budget": _("Planned for at most {budget:bytes} of memory, as asked"),
    "hardware.budget_above": _(
        "{budget:bytes} of memory were asked for, but a training can have at most "
        "{available:bytes} here: planned for those"
    ),
    "hardware.budget_beyond": _(
        "{budget:bytes} of memory are planned for and {available:bytes} are available: macOS will "
        "compress or swap {beyond:bytes} of what other programs hold, and they will be slow until "
        "the training ends"
    ),
    "hardware.pressure": _(
        "The system is short of memory (pressure: {level}). Close other applications before you "
        "train"
    ),
    "hardware.swap": _(
        "{used:bytes} of swap are in use, which slows training. Close other applications"
    ),
    "hardware.one_core": _("CPU: a single core; the machine will feel slow while it trains"),
    "hardware.cores": _("CPU: {cores:int} {cores:|core|cores}"),
    "hardware.gpu_cores": _("GPU: {cores:int} {cores:|core|cores}"),
    "hardware.macos": _("macOS {version}"),
    "hardware.old_macos": _("macOS {version} is too old for MLX: {least} or later is needed"),
    "hardware.battery": _("On battery ({share:pct}). Plug the machine in before a long training"),
    "hardware.low_power": _("Low Power Mode is on, which makes training slower"),
    # dependencies
    "dependencies.found": _("{name} {version}"),
    "dependencies.old_python": _("Python {version} is too old: {least} or later is needed"),
    "dependencies.missing": _(
        "{name} cannot be imported ({reason}). Install again: pip install 'safetrain[daemon]'"
    ),
    "dependencies.untried": _(
        "{name} {version} is not a version that was tried (supported: {supported})"
    ),
    "dependencies.compiler": _("Compiler for MLX on the CPU: {path}"),
    "dependencies.no_compiler": _(
        "No g++ was found: MLX will train uncompiled, somewhat slower. Install g++"
    ),
    "dependencies.blas": _("Fast matrices on the CPU: {path}"),
    "dependencies.no_blas": _(
        "No OpenBLAS was found: float32 will be about 40 times slower. Install libopenblas0"
    ),
    # gpu
    "gpu.metal": _("Metal GPU detected and active"),
    "gpu.cuda": _("CUDA GPU detected and active ({name})"),
    "gpu.cpu": _("No GPU: MLX computes on the CPU. Small models train well, large ones slowly"),
    "gpu.cpu_on_mac": _(
        "MLX computes on the CPU although this is a Mac. Reinstall it with a native Python: pip "
        "install --force-reinstall mlx"
    ),
    "gpu.broken": _("The device ({kind}) does not compute rightly: {reason}"),
    "gpu.busy": _("The GPU is busy: nothing was measured. Wait for it with --wait"),
    "gpu.not_tried": _("The device was not tried"),
    "gpu.limits": _(
        "Recommended working set: {working_set:bytes}; largest buffer: {buffer:bytes}; at most "
        "{resources:int} buffers at once"
    ),
    # model
    "model.download": _("The base model {name} will be downloaded ({bytes:bytes})"),
    "model.download_unknown": _("The base model {name} will be downloaded"),
    "model.incomplete": _("The model in {path} is incomplete: {files} is missing. Get it again"),
    "model.unreadable": _("The model in {path} cannot be read ({reason}). Get it again"),
    "model.found": _("Base model found ({bytes:bytes})"),
    "model.architecture": _("Architecture: {kind}"),
    "model.no_shape": _(
        "The configuration of this {kind} model does not say in single numbers how many layers, "
        "how wide and how many tokens it has, so no training of it can be planned"
    ),
    "model.unknown_architecture": _(
        "mlx-lm does not know models of the kind {kind}. Choose another model"
    ),
    "model.code_trusted": _(
        "The model brings its own code, which will run as you allowed ({path})"
    ),
    "model.code_unused": _("The model brings its own code; it is not run ({path})"),
    "model.needs_code": _(
        "The model needs the code that came with it ({path}). Read it, then allow it with "
        "--trust-remote-code"
    ),
    "model.quantized": _("Weights: {bits} bits (QLoRA)"),
    "model.float": _("Weights: {bits} bits, not quantized (LoRA)"),
    "model.licence": _("Licence of the model: {licence}"),
    "model.loaded": _("Model loaded successfully"),
    "model.not_tried": _("The model was not loaded"),
    "model.loading_died": _("The worker died while it loaded the model in {path} ({reason})"),
    "model.probe_failed": _("Trying the model in {path} ended with an error: {reason}"),
    "model.too_slow": _(
        "Too slow here to measure: it would take {limit:time} or more. The recommendation is "
        "by estimate, with a wide margin; preflight --thorough measures however long it takes"
    ),
    "model.does_not_train": _("The model in {path} cannot be trained: {reason}"),
    # disk
    "disk.enough": _("Enough disk space ({free:bytes})"),
    "disk.tight": _("Disk space is tight: {free:bytes} free, about {needed:bytes} will be written"),
    "disk.short": _("Not enough disk space: {free:bytes} free, about {needed:bytes} needed"),
    "disk.no_room_for_model": _(
        "No room for the model: {free:bytes} free, {needed:bytes} to download"
    ),
    "disk.private_folder": _(
        "{path} lies in {folder}, which macOS may close to a background service. If it does: "
        "System Settings, Privacy & Security, Files and Folders; or choose another folder"
    ),
    "disk.cloud_folder": _(
        "{path} lies in a folder that iCloud synchronises and may empty. Choose another folder"
    ),
    # recommendation
    "tier.very_limited": _("Very limited memory (under {high} GiB) - minimal config"),
    "tier.limited": _("Limited memory ({low}-{high} GiB) - reduced config"),
    "tier.moderate": _("Moderate memory ({low}-{high} GiB) - balanced config"),
    "tier.good": _("Good memory ({low}-{high} GiB) - full config"),
    "tier.ample": _("Ample memory ({low} GiB and more) - fast config"),
    "plan.none": _("No recommendation: first mend what failed above"),
    "plan.tiny_data": _(
        "Few samples ({samples:int}): an effective batch of {batch}, so that there are enough steps"
    ),
    "plan.other_batch": _(
        "With what you chose the effective batch is {batch}, not {usual} as usual in so much memory"
    ),
    "plan.epochs_texts": _(
        "{epochs:int} {epochs:|epoch|epochs}: {samples:int} {samples:|sample of text "
        "gives|samples of text give} {steps:int} {steps:|step|steps} then, and an adapter "
        "needs some hundreds to learn facts or a style"
    ),
    "plan.epochs_structured": _(
        "{epochs:int} {epochs:|epoch|epochs}: {samples:int} {samples:|sample with a JSON "
        "answer gives|samples with JSON answers give} {steps:int} {steps:|step|steps} then, "
        "and an adapter needs some two hundred to learn a format"
    ),
    "plan.epochs_labels": _(
        "{epochs:int} {epochs:|epoch|epochs}: {samples:int} {samples:|sample|samples} with "
        "few different answers {samples:|gives|give} {steps:int} {steps:|step|steps} then, "
        "and an adapter needs some two hundred to tell them apart"
    ),
    "plan.pilot": _(
        "Learning rate {rate:num}, by a pilot of {steps:int} {steps:|step|steps} each on "
        "this data (validation loss {base:num} before; after, by rate: {tried})"
    ),
    "plan.pilot_refused": _(
        "Learning rate {rate:num}, by a pilot of {steps:int} {steps:|step|steps} each on "
        "this data (validation loss {base:num} before; after, by rate: {tried}). Rates from "
        "{hot:num} on diverge"
    ),
    "plan.pilot_failed": _(
        "The pilot found no learning rate in its time: the table's is used. Give it more: "
        "--pilot 5min"
    ),
    "plan.length_of_data": _(
        "Sequences of {length:int} tokens: the longest sample has {longest:int}"
    ),
    "plan.shortened": _(
        "Sequences of {length:int} tokens, because the longest sample ({longest:int}) does not fit"
    ),
    "plan.cuts": _(
        "{count:int} {count:|sample is|samples are} cut at {length:int} tokens; {lost:int} of them"
        " {lost:|loses its|lose their} answer"
    ),
    "plan.no_cuts": _("No sample is cut at {length:int} tokens"),
    "plan.cuts_valid": _(
        "{count:int} validation {count:|sample is|samples are} cut at {length:int} tokens"
    ),
    "plan.checkpointing": _("Gradient checkpointing: less memory, about a third slower"),
    "plan.without_gradient_checkpointing": _(
        "Without gradient checkpointing, with which this model's gradients would be wrong"
    ),
    "plan.without_packing": _(
        "Without packing: in this model the samples of a packed row would see each other"
    ),
    "plan.loss_chunk": _(
        "The loss is computed {tokens:int} {tokens:|token|tokens} at a time: less memory, no slower"
    ),
    "plan.dequantize": _("Quantized weights are computed as float32: much faster on the CPU"),
    "plan.largest_buffer": _(
        "Smaller micro-batches: one array would be larger than the {buffer:bytes} that a buffer of "
        "this device holds"
    ),
    "plan.fewer_shapes": _(
        "Padded to multiples of {bucket:int} {bucket:|token|tokens}: at most {shapes:int} "
        "{shapes:|shape is|shapes are} compiled, because this device allows {resources:int} "
        "buffers"
    ),
    "plan.measured": _(
        "Measured with real steps at the heaviest shape: {peak:bytes} at the peak ±{margin:pct} "
        "({predicted:bytes} expected before), {free:pct} kept free, {speed:speed} tokens per second"
    ),
    "plan.extrapolated": _(
        "Extrapolated from real steps at smaller shapes: {peak:bytes} at the peak ±{margin:pct}, "
        "{free:pct} kept free, about {speed:speed} tokens per second"
    ),
    "plan.estimated": _(
        "Estimated from the model's shape, nothing was measured: {peak:bytes} at the peak "
        "±{margin:pct}, {free:pct} kept free"
    ),
    # What older versions wrote, which their jobs and reports still hold.
    "plan.predicted": _(
        "Predicted, not measured: {peak:bytes} at the peak, {margin:pct} kept free"
    ),
    "plan.refused_batch": _(
        "This does not fit: {needed:bytes} are needed, {room:bytes} can be had. It would fit with "
        "--set batch_size={rows}"
    ),
    "plan.refused_layers": _(
        "This does not fit: {needed:bytes} are needed, {room:bytes} can be had. It would fit with "
        "--set lora_layers={layers}"
    ),
    "plan.refused_length": _(
        "This does not fit: {needed:bytes} are needed, {room:bytes} can be had. It would fit with "
        "--set max_seq_length={length}"
    ),
    "plan.refused_both": _(
        "This does not fit: {needed:bytes} are needed, {room:bytes} can be had. It would fit with "
        "--set lora_layers={layers} --set max_seq_length={length}"
    ),
    "plan.refused_buffer": _(
        "This does not fit: one array would take {needed:bytes}, and a buffer of this device holds "
        "{room:bytes}. Choose a smaller batch_size or max_seq_length, or set loss_chunk"
    ),
    "plan.close_app": _("Quit {app}: that gives about {gives:bytes}"),
    "plan.close_enough": _(
        "With these closed there would be about {room:bytes}, and this training would fit"
    ),
    "plan.close_not_enough": _(
        "Even with these closed there would be about {room:bytes}, and {needed:bytes} are needed"
    ),
    "plan.raise_budget": _(
        "It would fit with --memory-budget {budget:num}GiB: {available:bytes} are available"
    ),
    "plan.squeeze": _(
        "Or let macOS compress and swap what other programs hold, which makes them slow: "
        "--memory-budget {budget:num}GiB"
    ),
    "plan.smaller_model": _(
        "{model} would fit: about {peak:bytes} at the peak. Others are told by: safetrain models "
        "suggest"
    ),
    "plan.refused_ranks": _(
        "{ranks:int} ranks do not fit on one machine: each needs {each:bytes}, all together "
        "{needed:bytes}, and {room:bytes} can be had. It would fit with --ranks {fewer}"
    ),
    "plan.ranks": _(
        "{ranks:int} ranks take {memory:bytes} together at most, and each sends {sent:bytes} in a "
        "step. On one machine they share its device, so they are no faster than one"
    ),
    "plan.refused_model": _(
        "This model does not fit: its weights take {weights:bytes}, and {room:bytes} can be had "
        "for everything. Choose a smaller model, or one with fewer bits"
    ),
}
