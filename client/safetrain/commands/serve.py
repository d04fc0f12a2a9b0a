"""`safetrain serve [JOB|MODEL]`: the model for other programs, as OpenAI's chat completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from safetrain import inputs
from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.int64 import MOST
from safetrain.remote.keep_open import keep_open
from safetrain.remote.local_files import LocalFiles
from safetrain.session import Session, command
from safetrain.views.json_output import write
from safetrain_proto.v1.jobs_pb2 import JobRequest
from safetrain_shared.errors import Unreachable
from safetrain_shared.i18n import translate as _

if TYPE_CHECKING:
    from safetrain.connection import Daemon
    from safetrain.serve.served import Served
    from safetrain.serve.server import Address


@command(
    _(
        "Serves a model to other programs of this machine through OpenAI's chat-completions "
        "interface: a job's best adapter, a base model, or with neither what `safetrain ask` "
        "would ask. Prints the address and a token that programs must send; "
        "SAFETRAIN_SERVE_TOKEN sets your own. Ctrl-C ends it; training goes on."
    ),
    example="safetrain serve\nsafetrain serve 3\nsafetrain serve demo --port 8400",
)
@click.argument("target", required=False, metavar="[JOB|MODEL]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8378,
    show_default=True,
    help=_("Where to listen; 0: any free port."),
)
def serve(session: Session, target: str | None, port: int) -> None:
    """Serve until Ctrl-C."""
    try:
        from safetrain.serve.server import serve
    except ModuleNotFoundError as error:
        raise Unreachable("serve.not_installed", name=error.name) from None

    def ready(address: Address) -> None:
        if session.json:
            write(
                {"base_url": address.base_url, "token": address.token, "model": address.model}
                | {"port": address.port}
            )
            return
        echo(_("Base URL: {url}").format(url=address.base_url))
        if address.token:
            echo(_("Token: {token}").format(token=address.token))
        echo(_("Model: {name}").format(name=address.model))
        session.note(_("Ctrl-C ends it; training goes on."))

    with connected(session) as daemon:
        served = _served(daemon, target or "")
        keep_open(daemon)
        serve(daemon.home, served, port, on_ready=ready)


def _served(daemon: Daemon, target: str) -> Served:
    """Return the job or model that is meant. Raises NotFound for a job that does not exist."""
    from safetrain.serve.served import Served

    if not target.isdecimal():
        model = inputs.model(target) if target else ""
        return Served(model=LocalFiles(daemon).model_there(model))
    job = min(int(target), MOST)
    daemon.call(daemon.jobs.Get, JobRequest(id=job), again=True)
    return Served(job=job)
