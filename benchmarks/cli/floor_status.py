"""The least that a click program with one gRPC call costs: it asks safetraind for its jobs."""

import click
import grpc

from safetrain_proto.v1 import jobs_pb2, jobs_pb2_grpc


@click.command()
@click.argument("socket")
def status(socket: str) -> None:
    """Prints a line a job."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        jobs = jobs_pb2_grpc.JobsStub(channel).List(jobs_pb2.ListJobsRequest()).jobs
    for job in jobs:
        click.echo(f"{job.id} {job.state}")


if __name__ == "__main__":
    status()
