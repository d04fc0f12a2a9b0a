"""Sentences about other machines: reaching them, and files that go there and back."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "hosts.unreadable": _(
        "{path} cannot be read as a list of hosts ({reason}). Mend or remove it."
    ),
    "hosts.unknown": _("There is no host {name}. safetrain hosts list shows all."),
    "hosts.name": _(
        "A host cannot be called {name}. Take letters, digits, dots, dashes and underscores."
    ),
    "hosts.destination": _(
        "{destination} is not a destination for ssh. Give one such as ana@studio.local, or a name "
        "of ~/.ssh/config."
    ),
    "hosts.command": _("The command of {name} is empty or not printable."),
    "host.connecting": _("Connecting to {host} …"),
    "host.no_ssh": _("ssh is not installed. Other machines are reached by it."),
    "host.unreachable": _("{host} cannot be reached by ssh ({reason}). Try: ssh {host} true"),
    "host.lost": _("The connection to {host} is lost. What runs there goes on."),
    "host.not_installed": _(
        "There is no {program} on {host}. Install it with: {command} Or say where it is: "
        "safetrain hosts add {host} --command PATH"
    ),
    "host.not_understood": _(
        "{host} answered something that cannot be understood. Install this version there: {command}"
    ),
    "host.older": _(
        "The safetrain on {host} ({daemon}) is older than this one ({own}) and lacks {feature}. "
        "Upgrade it with: {command}"
    ),
    "host.newer": _(
        "The safetrain on {host} ({daemon}) is newer than this one ({own}) and no longer takes "
        "{feature}. Upgrade this one: pipx upgrade safetrain"
    ),
    "host.refused": _("On {host}: {sentence}"),
    "host.prepare": _(
        "safetrain prepare works on files of this machine. Run it without --host: safetrain submit "
        "--host {host} sends what it writes."
    ),
    "host.fetch_from_where": _(
        "--fetch brings results from another machine. Name one with --host, or leave it out: here "
        "they are in the output folder anyway."
    ),
    "host.folder_here": _(
        "{path} is a folder of this machine, and the training is on another. Name a file."
    ),
    "host.folder_empty": _("{path} has no files that could be sent to {host}."),
    "files.offer": _(
        "The file {name} cannot be sent: its name is hidden or not printable, or it has more than "
        "{limit:bytes}."
    ),
    "files.busy": _("Another client is sending {name} just now; try again in a moment."),
    "files.too_long": _("More was sent of {name} than it has; it was not kept."),
    "files.damaged": _("{name} arrived damaged and was not kept. Send it again."),
    "files.not_whole": _("{name} was not sent whole. Run the command again: it goes on there."),
    "files.changed": _("{name} changed on the host while it was sent. Try again."),
    "host.any": _(
        "--host any stands for the host where a training would end soonest, so it is for safetrain "
        "submit alone. Name one: safetrain hosts list shows all."
    ),
    "host.any_split": _(
        "--host any judges the training and the validation file on every host, so it does not go "
        "with --split. Split them first: safetrain prepare"
    ),
    "host.none_of_any": _("No machine would train this. The first one says: {reason}"),
    "host.diagnose": _(
        "--bundle and --selftest look at the machine that they run on. Run it there: ssh {host} "
        "safetrain diagnose"
    ),
    "host.too_much": _("{host} sent more than it had announced; it was not kept."),
    "host.never_whole": _("{host} takes {name} and never has it whole. It was sent several times."),
    "files.name": _("The host sent a file name that leads out of the folder: {name}"),
    "files.none": _("Job {id} has no file {name}."),
    "files.no_room": _("There is no room on the disk for {name} ({size:bytes})."),
}
