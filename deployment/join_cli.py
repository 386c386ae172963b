"""`fedsieve join` and `fedsieve vault`, for the command line. What they need is imported inside: `--help` is quick."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from personalization.settings import Recovery
from strategies.secure_aggregation.settings import SMALLEST_COHORT

KeyFileOption = Annotated[
    Path | None, typer.Option("--vault-key-file", help="File of mode 600 with the key that encrypts the state.")
]
KeyringOption = Annotated[
    str | None,
    typer.Option(
        "--vault-keyring",
        help="Entry of the system's keyring (service fedsieve) with the key; needs fedsieve[keyring].",
    ),
]
KeyEnvironmentOption = Annotated[
    bool, typer.Option("--vault-env", help="Take the key from the environment variable FEDSIEVE_VAULT_KEY.")
]


def join(
    node_file: Annotated[Path, typer.Argument(help="The file that `fedsieve enroll` wrote for this device.")],
    data: Annotated[
        Path,
        typer.Option(
            help="This device's images: a folder, class folders, or an .npz file. Or its text: a folder of .txt or "
            ".jsonl files. They stay here."
        ),
    ],
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what this device keeps: one for each node.",
            show_default="~/.local/share/fedsieve/FLEET/NAME",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Share of the whole model that this device's personal model may keep.", show_default="the fleet's"
        ),
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option(
            help="Windows of private text that this device measures on, with a language model.",
            show_default="the fleet's",
        ),
    ] = None,
    window_tokens: Annotated[
        int | None, typer.Option(help="Tokens in a window of text.", show_default="the fleet's")
    ] = None,
    recovery: Annotated[
        Recovery | None,
        typer.Option(
            help="What makes up for a cut on this device: folded means only, closed-form refit (ridge), or that and "
            "training, towards the dense model (distill) or the labels, which are the next tokens of a text (tune).",
            show_default="the fleet's",
        ),
    ] = None,
    vault_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File of mode 600 with the key that encrypts the state; made if there is no vault yet.",
            show_default="as before, else ~/.config/fedsieve/FLEET/NAME.key",
        ),
    ] = None,
    vault_keyring: KeyringOption = None,
    vault_env: KeyEnvironmentOption = False,
    no_vault: Annotated[
        bool,
        typer.Option(
            "--no-vault",
            help="Encrypt nothing: whoever takes the disk can read samples of the search and the personal model.",
        ),
    ] = False,
    sums_only: Annotated[
        bool,
        typer.Option(
            "--sums-only/--in-the-open",
            help="Give this device's statistics to secure sums over several devices alone, or also to the server "
            "itself, where it asks for them.",
        ),
    ] = True,
    smallest_cohort: Annotated[
        int, typer.Option(help="Fewest devices of a sum that this one takes part in, itself among them; 3 or more.")
    ] = SMALLEST_COHORT,
    record: Annotated[
        Path | None,
        typer.Option(help="Folder for a recording of every byte that this device sends, for `fedsieve audit`."),
    ] = None,
    epsilon_budget: Annotated[
        float | None,
        typer.Option(
            help="What this device gives away in its life at most, as epsilon at delta 1e-5: it answers no plan that "
            "would exceed it, and none without noise.",
            show_default="no limit",
        ),
    ] = None,
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
    from deployment.join.vault_choice import choose_vault

    vault = choose_vault(key_file=vault_key_file, keyring=vault_keyring, environment=vault_env, none=no_vault)
    settings = JoinSettings(
        node_file=node_file,
        data=data,
        state=state,
        vault=vault,
        budget=budget,
        windows=windows,
        window_tokens=window_tokens,
        recovery=recovery,
        sums_only=sums_only,
        smallest_cohort=smallest_cohort,
        record=record,
        epsilon_budget=epsilon_budget,
    )
    run(settings, Reporter(as_json=as_json), environment=os.environ, backoff=Backoff())


def vault(
    state: Annotated[Path, typer.Argument(help="State folder of a node: the one that `fedsieve join` names.")],
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Encrypt everything with a new key; the old one opens nothing any more.")
    ] = False,
    vault_key_file: KeyFileOption = None,
    vault_keyring: KeyringOption = None,
    vault_env: KeyEnvironmentOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts.")] = False,
) -> None:
    """Show what is encrypted in a node's state and with which key, or change the key. No secret is ever shown.

    Without an option for the key it is the one that the state was last joined with.
    """
    from deployment.join.stored import change_key, describe_vault
    from deployment.join.vault_choice import choose_vault

    choice = choose_vault(key_file=vault_key_file, keyring=vault_keyring, environment=vault_env)
    if rotate:
        change_key(state, choice, os.environ)
    found = {**describe_vault(state, choice, os.environ), "rotated": rotate}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{state}: {found['key']}" + ("; everything is encrypted with a new key" if rotate else ""))
    if found["encrypted"]:
        plans = ", ".join(map(str, found["plans"])) or "none yet"
        typer.echo(f"{len(found['entries'])} entries after {found['generation']} changes; personal models: {plans}")
        if found["counter"] is None:
            typer.echo("no counter: an older copy of the whole folder could not be told from it")
