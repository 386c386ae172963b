"""`fedsieve join` and `fedsieve vault`, for the command line. What they need is imported inside: `--help` is quick."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from deployment.join.options import (
    DataOption,
    KeyOptions,
    NodeFileArgument,
    OwnOptions,
    SharingOptions,
    StateOption,
    VaultOptions,
)
from personalization.system.option_groups import grouped


@grouped
def join(
    *,
    node_file: NodeFileArgument,
    data: DataOption,
    state: StateOption = None,
    own: OwnOptions,
    vault: VaultOptions,
    sharing: SharingOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a JSON object on a line.")] = False,
) -> None:
    """Take part in a fleet: connect, personalize when a plan comes, connect again for ever.

    For instance: fedsieve join kitchen.json --data images, or for a language model --data texts

    SIGTERM or Ctrl-C ends it. Exit code 2 says that somebody has to do something, and the line before it what.
    """
    from deployment.join.backoff import Backoff
    from deployment.join.report import Reporter
    from deployment.join.run import join as run
    from deployment.join.settings import JoinSettings

    settings = JoinSettings(
        node_file=node_file,
        data=data,
        state=state,
        vault=vault.choice(),
        **own.settings(),
        **sharing.settings(),
    )
    run(settings, Reporter(as_json=as_json), environment=os.environ, backoff=Backoff())


@grouped
def vault(
    *,
    state: Annotated[Path, typer.Argument(help="State folder of a node: the one that `fedsieve join` names.")],
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Encrypt everything with a new key; the old one opens nothing any more.")
    ] = False,
    key: KeyOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts.")] = False,
) -> None:
    """Show what is encrypted in a node's state and with which key, or change the key. No secret is ever shown.

    Without an option for the key it is the one that the state was last joined with.
    """
    from deployment.join.stored import change_key, describe_vault

    choice = key.choice()
    if rotate:
        change_key(state, choice, os.environ)
    found = {**describe_vault(state, choice, os.environ), "rotated": rotate}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _show_vault(state, found)


def _show_vault(state: Path, found: dict[str, Any]) -> None:
    changed = "; everything is encrypted with a new key" if found["rotated"] else ""
    typer.echo(f"{state}: {found['key']}{changed}")
    if found["encrypted"]:
        plans = ", ".join(map(str, found["plans"])) or "none yet"
        typer.echo(f"{len(found['entries'])} entries after {found['generation']} changes; personal models: {plans}")
        if found["counter"] is None:
            typer.echo("no counter: an older copy of the whole folder could not be told from it")
