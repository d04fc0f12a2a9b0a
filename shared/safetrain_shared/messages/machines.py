"""Sentences about trainings over several machines."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "machines.twice": _("A machine is named twice: {names}. Each takes part once."),
    "machines.itself": _(
        "{machine} is the machine that leads this training. Name the others only: it takes part "
        "by itself."
    ),
    "machines.with_ranks": _(
        "ranks is for one machine and machines for several: each machine has one rank. Leave one "
        "of them out."
    ),
    "machines.unreachable": _(
        "{machine} cannot be reached for this training ({reason}). Once it can, the training goes "
        "on by itself."
    ),
    "machines.older": _(
        "The safetrain on {machine} knows no training over several machines. Install the same "
        "version on all of them."
    ),
    "machines.refused": _("{machine} refuses to take part: {sentence}"),
    "machines.busy": _(
        "The GPU of {machine} is in use. The training begins once all its machines are free."
    ),
    "machines.missing": _(
        "The training goes on without {machines}, as fewer_machines allows, with the same "
        "effective batch. They take part again in an attempt after this one."
    ),
    "machines.ready": _("{machine} takes part, with {memory:bytes} of memory for its rank."),
    "machines.lent_begins": _(
        "The GPU is lent to the training {training} that {machine} leads; it has not begun yet. "
        "Jobs of this machine wait until it is free."
    ),
    "machines.lent": _(
        "The GPU is lent to the training {training} that {machine} leads, now at step {step:int}. "
        "Jobs of this machine wait until it is free."
    ),
    "machines.versions": _(
        "{machine} has other versions, and what is computed may differ: {differences}. Install the "
        "same ones on all machines; in brackets those of the machine that leads."
    ),
    "machines.clock": _(
        "The clock of {machine} is off by {seconds:int} s from that of the machine that leads. "
        "Let both set themselves by the network."
    ),
    "machines.no_rdma": _(
        "{machine} has no device {devices}, by which the host file jaccl.json joins the machines. "
        "Switch RDMA on there, with rdma_ctl enable in macOS Recovery (macOS 26.2 or later), or "
        "remove that file beside the list of hosts: the training then goes by ssh."
    ),
    "machines.no_model": _(
        "{machine} has no model {name}. Each machine reads its own copy, by the same name or in "
        "the same folder: bring it there first."
    ),
    "machines.model": _(
        "The model {name} on {machine} is another one: {files}. All machines of a training need "
        "the same files."
    ),
    "machines.memory": _(
        "{machine} has too little memory: a rank needs {needed:bytes}, and {room:bytes} can be "
        "had there now. Free some, or leave that machine out."
    ),
    "job.machine_lost": _(
        "The connection to {machine} is lost ({reason}). All ranks were ended and go on from the "
        "last checkpoint once it is back."
    ),
    "job.machine_rank_killed": _(
        "Rank {rank:int}, on {machine}, was killed (signal {signal:int}). All ranks were ended and "
        "go on from the last checkpoint."
    ),
    "job.machine_rank_ended": _(
        "Rank {rank:int}, on {machine}, ended with exit code {code:int}. All ranks were ended and "
        "go on from the last checkpoint. Its log: {log}"
    ),
}
