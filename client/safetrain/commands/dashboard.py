"""`safetrain dashboard`: serve the live page in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.session import Session, command
from safetrain.views.json_output import write
from safetrain_shared.errors import Unreachable
from safetrain_shared.i18n import translate as _

if TYPE_CHECKING:
    from safetrain.page.access import Keys


@command(
    _(
        "The whole job in a browser: begin a training from a file, follow it, and use what came of "
        "it. "
        "Served to this machine alone, and only to who opens the address it prints. Ctrl-C ends "
        "it; training goes on."
    ),
    example="safetrain dashboard\nsafetrain dashboard --port 8400 --no-open",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=_("Where to listen; 0: any free port. By default 8377, or any where that is taken."),
)
@click.option("--no-open", is_flag=True, help=_("Only print the address."))
def dashboard(session: Session, port: int | None, no_open: bool) -> None:
    """Serve until Ctrl-C."""
    try:
        from safetrain.page.server import serve
    except ModuleNotFoundError as error:
        raise Unreachable("client.dashboard_missing", name=error.name) from None

    def ready(keys: Keys) -> None:
        if session.json:
            write({"url": keys.address(), "port": keys.port})
            return
        echo(keys.address())
        session.note(_("Open that address here. Ctrl-C ends the page; training goes on."))

    with connected(session) as daemon:
        serve(daemon, port, open_page=not (no_open or session.json), on_ready=ready)
