"""The options of `fedsieve join` in groups, and those for a vault's key. Heavy imports are made where they are used."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personalization.errors import UserError
from personalization.settings import RECOVERY_WORDS, Precision, Recovery
from strategies.secure_aggregation.settings import SMALLEST_COHORT

if TYPE_CHECKING:
    from deployment.join.vault_choice import VaultChoice

NodeFileArgument = Annotated[Path, typer.Argument(help="The file that `fedsieve enroll` wrote for this device.")]
DataOption = Annotated[
    Path,
    typer.Option(
        help="This device's images: a folder, class folders, or an .npz file. Or its text: a folder of .txt or "
        ".jsonl files. They stay here."
    ),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder for what this device keeps: one for each node.",
        show_default="~/.local/share/fedsieve/FLEET/NAME",
    ),
]


@dataclass(frozen=True, kw_only=True)
class KeyOptions:
    """Where the key is that opens the vault of a state."""

    vault_key_file: Annotated[
        Path | None, typer.Option(help="File of mode 600 with the key that encrypts the state.")
    ] = None
    vault_keyring: Annotated[
        str | None,
        typer.Option(help="Entry of the system's keyring (service fedsieve) with the key; needs the extra `keyring`."),
    ] = None
    vault_env: Annotated[
        bool, typer.Option("--vault-env", help="Take the key from the environment variable FEDSIEVE_VAULT_KEY.")
    ] = False

    def choice(self) -> "VaultChoice | None":
        """Return what the options say, None if they say nothing. Raises UserError if they say two things."""
        from deployment.join.vault_choice import choose_vault

        return choose_vault(key_file=self.vault_key_file, keyring=self.vault_keyring, environment=self.vault_env)

    def refuse(self, folder: Path) -> None:
        """Raise UserError if there are any, for a folder that is not the state of a node."""
        if any(asdict(self).values()):
            raise UserError(f"{folder}: not the state of a node, so there is no key; leave out the --vault options")


@dataclass(frozen=True, kw_only=True)
class VaultOptions(KeyOptions):
    """Whether a state is encrypted, and with which key."""

    vault_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File of mode 600 with the key that encrypts the state; made if there is no vault yet.",
            show_default="as before, else ~/.config/fedsieve/FLEET/NAME.key",
        ),
    ] = None
    no_vault: Annotated[
        bool,
        typer.Option(
            "--no-vault",
            help="Encrypt nothing: whoever takes the disk can read samples of the search and the personal model.",
        ),
    ] = False

    def choice(self) -> "VaultChoice | None":
        """Return what the options say, None if they say nothing. Raises UserError if they say two things."""
        from deployment.join.vault_choice import choose_vault

        return choose_vault(
            key_file=self.vault_key_file, keyring=self.vault_keyring, environment=self.vault_env, none=self.no_vault
        )


@dataclass(frozen=True, kw_only=True)
class OwnOptions:
    """What this device does otherwise than its fleet."""

    budget: Annotated[
        float | None,
        typer.Option(
            help="Share that this device's personal model may keep of what the fleet's --budget-kind counts: unless it "
            "says otherwise, the blocks' weights.",
            show_default="the fleet's",
        ),
    ] = None
    windows: Annotated[
        int | None,
        typer.Option(
            help="Windows of private text that this device measures on, with a language model.",
            show_default="the fleet's",
        ),
    ] = None
    window_tokens: Annotated[
        int | None, typer.Option(help="Tokens in a window of text.", show_default="the fleet's")
    ] = None
    vocabulary: Annotated[
        int | None,
        typer.Option(
            help="Cut the vocabulary of a language model: at most so many tokens stay, those that this device's text "
            "uses and the model expects there. 0: all stay; -1: as many as leave tokens and blocks the best shares of "
            "a budget of bytes.",
            show_default="the fleet's",
        ),
    ] = None
    recovery: Annotated[
        Recovery | None,
        typer.Option(
            help=f"What makes up for a cut on this device: {RECOVERY_WORDS}.",
            show_default="the fleet's",
        ),
    ] = None
    refit_samples: Annotated[
        int | None,
        typer.Option(
            help="Windows of this device's text that the final cut of a language model is made on, where there "
            "are more than `--windows`; 0: those alone.",
            show_default="the fleet's",
        ),
    ] = None
    tune_first: Annotated[
        int | None,
        typer.Option(
            help="Batches on which this device tunes the whole model to its labels, of text the next tokens, before "
            "its final cut; 0: none, whatever the server asks for.",
            show_default="the fleet's",
        ),
    ] = None
    training_steps: Annotated[
        int | None,
        typer.Option(
            help="Batches of training, with a recovery that trains; 0: this device trains nothing, whatever the server "
            "asks for.",
            show_default="the fleet's",
        ),
    ] = None
    adapters: Annotated[
        int | None,
        typer.Option(
            help="Train low-rank adapters (LoRA) of this rank instead of the weights; needs the extra `adapters`. "
            "0: train the weights.",
            show_default="the fleet's",
        ),
    ] = None
    training_precision: Annotated[
        Precision | None,
        typer.Option(
            help="Of the passes of training; `bfloat16` is faster on processors that know it.",
            show_default="the fleet's",
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return them as `JoinSettings` takes them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SharingOptions:
    """What leaves this device, and what is kept of that."""

    sums_only: Annotated[
        bool,
        typer.Option(
            "--sums-only/--in-the-open",
            help="Give this device's statistics to secure sums over several devices alone, or also to the server "
            "itself, where it asks for them.",
        ),
    ] = True
    smallest_cohort: Annotated[
        int, typer.Option(help="Fewest devices of a sum that this one takes part in, itself among them; 3 or more.")
    ] = SMALLEST_COHORT
    record: Annotated[
        Path | None,
        typer.Option(help="Folder for a recording of every byte that this device sends, for `fedsieve audit`."),
    ] = None
    epsilon_budget: Annotated[
        float | None,
        typer.Option(
            help="What this device gives away in its life at most, as epsilon at delta 1e-5: it answers no plan that "
            "would exceed it, and none without noise.",
            show_default="no limit",
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return them as `JoinSettings` takes them."""
        return asdict(self)
