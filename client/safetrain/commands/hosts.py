"""`safetrain hosts add | list | check | remove`: the other machines on which you train."""

from __future__ import annotations

from dataclasses import replace

import click

from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.session import Session, command, example_epilog, shared_options
from safetrain.views.json_output import write
from safetrain_proto.v1.control_pb2 import InfoRequest
from safetrain_shared.i18n import translate as _
from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import COMMAND, Host
from safetrain_shared.remote.installing import missing
from safetrain_shared.remote.tunnel import Tunnel

hosts = shared_options(
    click.Group(
        "hosts",
        help=_("Other machines on which you train, reached by your own ssh; --host names one."),
        epilog=example_epilog(
            "safetrain hosts add studio ana@studio.local\nsafetrain jobs --host studio"
        ),
    )
)


@command(
    _("Keeps a machine under a name."),
    example="safetrain hosts add studio ana@studio.local",
    name="add",
)
@click.argument("name")
@click.argument("destination", required=False)
@click.option(
    "--command",
    metavar="COMMAND",
    default=COMMAND,
    show_default=True,
    help=_("What runs safetraind there, such as ~/safetrain/.venv/bin/safetraind."),
)
def add(session: Session, name: str, destination: str | None, command: str) -> None:
    """Write the host into the file; nothing is asked of the machine."""
    host = Host(name, destination or name, command)
    host_list.add(host)
    _show(session, [host])


@command(_("Lists the machines that have a name."), example="safetrain hosts list", name="list")
def list_hosts(session: Session) -> None:
    """Print one line per host."""
    _show(session, list(host_list.read().values()))


@command(
    _("Says whether a machine can be reached and runs safetraind."),
    example="safetrain hosts check studio",
    name="check",
)
@click.argument("name")
def check(session: Session, name: str) -> None:
    """Ask the host for its service, which is started where none runs."""
    host = host_list.find(name)
    found = Tunnel(host, session.note).endpoint(autostart=session.autostart)
    with connected(replace(session, host=name)) as daemon:
        info = daemon.call(daemon.control.Info, InfoRequest(), again=True)
    if error := missing(host, info):
        raise error
    if session.json:
        write({"name": name, "version": found.version, "socket": found.socket})
        return
    echo(_("{name}: safetraind {version} answers.").format(name=name, version=found.version))


@command(_("Forgets a machine."), example="safetrain hosts remove studio", name="remove")
@click.argument("name")
def remove(session: Session, name: str) -> None:
    """Remove the host from the file."""
    host_list.remove(name)
    if session.json:
        write({"name": name, "removed": True})
    else:
        echo(_("{name} is removed.").format(name=name))


def _show(session: Session, found: list[Host]) -> None:
    if session.json:
        keys = ("name", "destination", "command")
        write([{key: getattr(host, key) for key in keys} for host in found])
        return
    for host in found:
        echo(f"{host.name}  {host.destination}  {host.command}")


for each in (add, list_hosts, check, remove):
    hosts.add_command(each)
