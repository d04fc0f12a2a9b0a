"""Sentences about jobs: submitting, queueing, controlling."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "job.rank_killed": _(
        "Rank {rank:int} (of {ranks:int}, counted from 0) was killed (signal {signal:int}). All "
        "ranks were ended and go on from the last checkpoint."
    ),
    "job.rank_crashed": _(
        "Rank {rank:int} (of {ranks:int}, counted from 0) ended with exit code {code:int}. All "
        "ranks were ended and go on from the last checkpoint. Its log: {log}"
    ),
    "job.rank_lost": _(
        "Rank {rank:int} (of {ranks:int}, counted from 0) is gone, and nothing says why. All ranks "
        "were ended and go on from the last checkpoint."
    ),
    "job.ranks_hung": _(
        "The {ranks:int} ranks made no step for {seconds:int} s at step {step:int}: nothing came "
        "from rank {late}. All were ended and go on from the last checkpoint."
    ),
    "job.ranks_stuck": _(
        "The {ranks:int} ranks made no step for {seconds:int} s at step {step:int}, each waiting "
        "for the others. All were ended and go on from the last checkpoint."
    ),
    "job.ranks_left_behind": _(
        "Rank 0 of {ranks:int} had ended, and another one did not follow. All were ended."
    ),
    "job.unreadable": _(
        "What is kept of this job cannot be understood ({reason}), so it was set aside; its files "
        "are as they were. Submit it again with the same output folder, or remove the job."
    ),
    "job.cannot_start": _("The training's process could not be started: {path} ({reason})."),
    "path.relative": _("{path} is not an absolute path."),
    "path.not_utf8": _("The path {path} cannot be used: its name is not UTF-8. Rename it."),
    "path.nul": _("The path {path} cannot be used: it holds a NUL byte."),
    "path.missing": _("{path} does not exist."),
    "path.not_a_file": _("{path} is not a file."),
    "path.not_a_folder": _("{path} is not a folder."),
    "path.unreadable": _("{path} cannot be read ({reason})."),
    "path.refused": _("The system refuses access to {path} ({reason}). Check who may use it."),
    "path.unwritable": _("{path} cannot be written ({reason}). Choose another folder: --output."),
    "job.unknown": _("There is no job {id}. See them all with: safetrain jobs"),
    "job.none": _("There is no job yet. Begin with: safetrain submit"),
    "job.output_busy": _(
        "Another home's job is being trained in {output}; this one waits until that has ended."
    ),
    "job.output_replaced": _(
        "{output} holds the training of job {other} of the home {home} by now, so job {id} cannot "
        "go on there. Submit it again with another folder: --output"
    ),
    "job.output_of_other_home": _(
        "{output} holds the training of job {id} of another home, {home}. Choose another folder: "
        "--output"
    ),
    "folder.busy": _(
        "Another safetrain is writing in {path}. Wait until it has ended, or name another folder."
    ),
    "job.other_request": _(
        "The idempotency key {key} was used for job {id}, which is another request: {differences}. "
        "Use a new key."
    ),
    "path.ours": _("{path} cannot be an output folder: safetrain keeps its own files there."),
    "path.of_the_job": _("{path} cannot be an output folder: {used} is read from there."),
    "path.of_the_system": _("{path} cannot be an output folder: it is not on a disk."),
    "job.left_out": _(
        "Not shown: {count:int} older {count:|job that has|jobs that have} "
        "ended (safetrain jobs --all)."
    ),
    "job.finished": _("Job {id} has already ended ({state})."),
    "job.not_paused": _("Job {id} is not paused ({state})."),
    "job.not_queued": _("Job {id} is not waiting in the queue ({state})."),
    "job.not_retryable": _("Job {id} has not failed ({state}); there is nothing to retry."),
    "job.live": _("Job {id} is still at work. Cancel it first: safetrain cancel {id}"),
    "job.output_taken": _(
        "Job {id} already writes to {output}. Choose another folder, or wait for it to end."
    ),
    "job.output_paused": _(
        "Job {id} is paused in {output}; it began with other values ({differences}). Go on with "
        "it: safetrain resume {id}. Or begin anew: safetrain cancel {id}, then submit with --fresh."
    ),
    "job.fresh_live": _(
        "{output} belongs to job {id}, which is not over. To begin anew there, cancel it first: "
        "safetrain cancel {id}"
    ),
    "job.not_aside": _(
        "The run in {output} cannot be moved aside to {aside} ({reason}). Move it away yourself, "
        "or choose another folder: --output."
    ),
    "job.waits_for_itself": _("Job {id} cannot wait for job {after}, which waits for it."),
    "job.output_finished": _(
        "{output} holds a finished training (job {id}). To train anew there and keep the old run "
        "aside, add --fresh."
    ),
    "job.output_differs": _(
        "{output} holds an interrupted training that began with other values ({differences}). "
        "Submit it with those to go on, or add --fresh to begin anew."
    ),
    "job.output_data_differs": _(
        "{output} holds an interrupted training, but {train} or {valid} has other content than "
        "when it began. Bring it back to go on, or add --fresh to begin anew."
    ),
    "job.data_changed": _(
        "{path} has changed since the job was submitted. Submit it again with --fresh."
    ),
    "job.worker_lost": _("The training process ended without a word."),
    "job.worker_killed": _("The training process was killed (signal {signal})."),
    "job.worker_crashed": _("The training process ended with exit code {code}. See its log: {log}"),
    "job.out_of_memory": _("The training ran out of memory."),
    "job.gpu_watchdog": _(
        "macOS ended the training because the display waited for the GPU too long. It goes on "
        "unchanged. Let the display sleep while it trains: lock the screen and close no lid."
    ),
    "job.gave_up": _("Three attempts ended without a new checkpoint. The last cause: {cause}"),
    "job.kernel_panic": _(
        "The machine restarted after a kernel panic while the job was training. The report is in "
        "{path}."
    ),
    "job.machine_restarted": _("The machine restarted while the job was training."),
    "job.lease_busy": _("Another process holds the GPU."),
    "job.not_at_login": _(
        "After a restart of this machine the training goes on only once the service runs again. "
        "Let it start at login: safetraind install"
    ),
    "job.lid": _(
        "Keep the lid open: a closed lid puts the Mac to sleep, and the training waits until it is "
        "opened again."
    ),
    "job.paused_by_user": _("Paused as asked."),
    "job.cancelled_by_user": _("Cancelled as asked."),
    "backoff.micro_batch": _(
        "It goes on with smaller steps: batch_size {batch_size:int} and gradient_accumulation "
        "{gradient_accumulation:int}; the effective batch stays."
    ),
    "backoff.gradient_checkpointing": _(
        "It goes on with gradient checkpointing, which is slower and takes less memory."
    ),
    "backoff.loss_chunk": _(
        "It goes on with the loss in chunks of {loss_chunk:int} {loss_chunk:|token|tokens}."
    ),
    "backoff.shorter": _("It goes on with max_seq_length {max_seq_length:int}, as you allowed."),
    "events.damaged": _("Bytes {first} to {last} of the event file cannot be read."),
}
