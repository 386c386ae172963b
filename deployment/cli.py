"""The commands between machines, for the command line. What they need is imported inside them: `--help` is quick."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts, instead of tables.")]


def enroll(
    fleet: Annotated[Path, typer.Argument(help="Folder for the fleet's keys and its record; keep it on the server.")],
    server: Annotated[
        str | None,
        typer.Option(help="HOST:PORT at which devices reach the server; needed once, to make the fleet."),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="Another host name or IP address of the server; can be repeated. Loopback always is one."),
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(help="Name for a device to enrol: small letters, digits, - and _; can be repeated."),
    ] = None,
    renew: Annotated[
        list[str] | None,
        typer.Option(
            help="`server` or `authority`: issue its certificate anew. A node's name: write its file anew. "
            "Keys stay. Can be repeated."
        ),
    ] = None,
    revoke: Annotated[
        list[str] | None,
        typer.Option(help="Name of a device that the server must refuse from now on, for ever; can be repeated."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The only model that devices are to take: a local folder or a Hugging Face name.",
            show_default="any that the server signs",
        ),
    ] = None,
    days: Annotated[int, typer.Option(help="How long a server certificate is valid; the authority's is ten years.")] = (
        365
    ),
    enrolment_key: Annotated[
        Path | None,
        typer.Option(
            help="File of the enrolment key, if it was moved off the server: with it somebody could make up devices.",
            show_default="enrolment-key.json in the fleet's folder",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a fleet's keys and certificates, and for each device the one file to carry to it; or list what there is.

    To begin: fedsieve enroll FLEET --server edge.example.org:8443 --node kitchen --node hall

    With FLEET alone it shows who belongs to the fleet and until when its certificates are valid. The same call again
    changes nothing, and no key is ever overwritten.
    """
    from deployment.command import Enrolment
    from deployment.command import enroll as run
    from deployment.report import fleet_tables, headline, next_steps

    asked = Enrolment(
        server=server,
        also=also or [],
        nodes=node or [],
        renew=renew or [],
        revoke=revoke or [],
        model=model,
        days=days,
        enrolment_key=enrolment_key,
    )
    found = run(fleet, asked)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo(headline(found))
        Console().print(*fleet_tables(found))
        for line in next_steps(found):
            typer.echo(line)
