"""The least that a click program with help costs."""

import click


@click.group()
def program() -> None:
    """Fine-tune a language model on your own machine."""


@program.command()
def status() -> None:
    """One job at a glance."""


if __name__ == "__main__":
    program()
