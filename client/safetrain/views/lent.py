"""The rank of another machine's training to which this machine lends its GPU, as text."""

from __future__ import annotations

from safetrain_proto.v1.jobs_pb2 import ListJobsResponse
from safetrain_shared.messages import sentence
from safetrain_shared.printable import one_line


def lent_lines(found: ListJobsResponse) -> list[str]:
    """Return a line that names the training and the machine that leads it; [] where there is none.

    Both names come from the other machine.
    """
    if not found.HasField("lent"):
        return []
    lent = found.lent
    code = "machines.lent" if lent.step else "machines.lent_begins"
    args = {"training": one_line(lent.training), "machine": one_line(lent.leader)}
    return [sentence(code, {**args, "step": lent.step})]
