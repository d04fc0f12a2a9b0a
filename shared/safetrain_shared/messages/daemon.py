"""Sentences about the service itself: starting, stopping, reaching it."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "home.foreign": _("{path} is not a folder of yours. Give another with SAFETRAIN_HOME."),
    "request.malformed": _("The request cannot be understood ({reason})."),
    "home.open": _("Others may write in {path}. Close it to them with: chmod go-w {path}"),
    "home.gone": _(
        "{path} was deleted while safetraind served it, so it has stopped. A training saved a "
        "checkpoint in its output folder; submit it again to go on from there."
    ),
    "home.taken": _("Another safetraind serves {home} by now; this one has stopped."),
    "disk.hangs": _(
        "{path} does not answer: nothing could be read there within {seconds:int} s. Is its disk "
        "or network drive still connected?"
    ),
    "home.unwritable": _("{path} cannot be written ({reason}). Give another with SAFETRAIN_HOME."),
    "home.file_closed": _(
        "{path} may not be read and written by you; a command under sudo may have made it. Take it "
        'back with: sudo chown "$(id -un)" {path} && chmod u+rw {path}'
    ),
    "home.odd_file": _(
        "{path} is neither a file nor a folder, and stands where safetrain keeps a file of its "
        "own. Move it away, then start again."
    ),
    "daemon.running": _("A safetraind (pid {pid}) already serves {home}; it goes on untouched."),
    "daemon.unreachable": _("No safetraind answers at {socket}. Start one with: safetraind start"),
    "daemon.not_installed": _(
        "This is the client alone. To train on this machine, install: pip install "
        "'safetrain[daemon]'"
    ),
    "daemon.start_failed": _("safetraind did not start. Its log is in {log}: {reason}"),
    "daemon.start_died": _("safetraind ended at once (exit code {code}). Its log is in {log}."),
    "daemon.agent_python_gone": _(
        "What starts the service at login names a Python that is gone: {python}. Write it anew: "
        "safetraind install"
    ),
    "daemon.starting": _("Starting safetraind …"),
    "daemon.stopping": _("safetraind is stopping; try again in a moment."),
    "daemon.incompatible": _(
        "This command needs a feature that the running safetraind lacks ({feature}). Run: "
        "safetraind restart"
    ),
    "daemon.broken": _("Something went wrong inside safetraind ({reason}). The log is in {log}."),
    "database.newer": _(
        "{path} was written by a newer safetrain (version {found}, this one knows {known}). "
        "Upgrade safetrain; the file was left as it is."
    ),
    "file.newer": _(
        "{path} was written by a newer safetrain (format {found}, this one knows {known}). "
        "Upgrade safetrain; the file was left as it is."
    ),
    "database.damaged": _(
        "{path} is damaged ({reason}). It was left as it is. Your jobs are still in their folders; "
        "bring them back with: safetraind restore"
    ),
    "restore.whole": _(
        "The database is whole: {jobs:int} {jobs:|job|jobs}, {rebuilt:int} of them brought "
        "back from {rebuilt:|its folder|their folders}."
    ),
    "restore.from_folders": _(
        "The database is whole again: {jobs:int} {jobs:|job, brought back from its "
        "folder|jobs, all brought back from their folders}. The damaged one is kept as "
        "{aside}. Go on with: safetraind start"
    ),
    "restore.from_backup": _(
        "The database is whole again: {jobs:int} {jobs:|job|jobs}, from the backup of "
        "{when}, and {rebuilt:int} of them as {rebuilt:|its folder tells|their folders "
        "tell}. The damaged one is kept as {aside}. Go on with: safetraind start"
    ),
    "disk.full": _("No space left for {path}. Free some, then go on; nothing was lost."),
    "disk.refused": _("{path} cannot be written ({reason})."),
    "daemon.streams_full": _(
        "safetraind already keeps {limit:int} calls of this kind open (watch, ask, validate), as "
        "many as it may. End one of them, then try again."
    ),
    "socket.foreign": _(
        "{path} is no socket that only you can open, so nothing is sent to it. Remove it, or give "
        "another home with SAFETRAIN_HOME."
    ),
    "message.too_large": _("That message is too large ({size:bytes}; at most {limit:bytes})."),
}
