"""Server, proxy and devices on this machine, through their own commands, with what goes wrong in the field.

Each device gets a folder of real images, or of a speaker's texts, and a home of its own. `fedsieve enroll`, `serve` and
`join` run as processes over TLS with node keys; a device and the server lose their power on the way; then every device
tries its personal model on what it never saw. The same fleet in the simulator has to come to the same plans.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import get_args

from rich.console import Console

from benchmarks.edge.settings import EdgeSettings
from personalization.settings import Recovery


def main() -> int:
    """Run the command line; return the exit code: 1 if something did not come out, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edge", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/edge"), help="new folder for everything (runs/edge)")
    parser.add_argument("--seed", type=int, default=0, help="of the images' shares, the fleet and the simulation (0)")
    parser.add_argument(
        "--model", help="image classifier or language model: a folder, a hub name, or smollm2 (bundled ViT)"
    )
    parser.add_argument("--data", type=Path, help="for a language model: a folder with one of text for each speaker")
    parser.add_argument(
        "--windows", type=int, default=EdgeSettings.windows, help="windows of each device (%(default)s)"
    )
    parser.add_argument(
        "--window-tokens", type=int, default=EdgeSettings.window_tokens, help="tokens in one (%(default)s)"
    )
    parser.add_argument("--vocabulary", type=int, help="most tokens of each device's language model (all)")
    parser.add_argument(
        "--recovery", choices=get_args(Recovery), default=EdgeSettings.recovery, help="after a cut (%(default)s)"
    )
    parser.add_argument(
        "--training-steps", type=int, default=EdgeSettings.training_steps, help="of distill and tune (%(default)s)"
    )
    parser.add_argument("--devices", type=int, default=EdgeSettings.devices, help="how many (%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=EdgeSettings.rounds, help="rounds before the final pass (%(default)s)"
    )
    parser.add_argument(
        "--budget", type=float, default=EdgeSettings.budget, help="share of the weights kept (%(default)s)"
    )
    parser.add_argument(
        "--deadline", type=float, default=EdgeSettings.deadline, help="seconds that a round may take (%(default)s)"
    )
    parser.add_argument("--no-kills", action="store_true", help="let a device and the server keep their power")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of tables")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
    # A shell's background job would ignore the first; the last is of `_interrupt_again`.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _interrupt)
    sys.unraisablehook = _interrupt_again

    from benchmarks.edge.commands import EdgeError
    from benchmarks.edge.run import run_edge
    from benchmarks.edge.table import device_table, summary_lines
    from personalization.errors import UserError
    from personalization.model_files.known_models import named_model
    from personalization.system.files import write_atomically
    from simulations.pretrain import MODEL_FOLDER

    started = time.monotonic()
    try:
        model = MODEL_FOLDER if arguments.model is None else Path(named_model(arguments.model))
        report = run_edge(
            _settings(arguments),
            model=model,
            say=lambda line: print(f"{time.monotonic() - started:5.0f} s  {line}", file=sys.stderr),
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (EdgeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; everything that was started has ended", file=sys.stderr)
        return 130
    text = json.dumps(report, indent=1)
    write_atomically(arguments.out / "edge.json", text.encode())
    if arguments.json:
        print(text)
    else:
        Console().print(device_table(report), highlight=False)
        print(*summary_lines(report), sep="\n")
        print(f"{arguments.out / 'edge.json'}: the same as numbers; the logs are in {arguments.out / 'log'}")
    return 0


def _settings(arguments: argparse.Namespace) -> EdgeSettings:
    """Raises UserError."""
    return EdgeSettings(
        out=arguments.out,
        devices=arguments.devices,
        rounds=arguments.rounds,
        data=arguments.data,
        windows=arguments.windows,
        window_tokens=arguments.window_tokens,
        vocabulary=arguments.vocabulary,
        recovery=arguments.recovery,
        training_steps=arguments.training_steps,
        budget=arguments.budget,
        deadline=arguments.deadline,
        seed=arguments.seed,
        kill_device_in=None if arguments.no_kills else EdgeSettings.kill_device_in,
        kill_server_in=None if arguments.no_kills else EdgeSettings.kill_server_in,
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupt_again(found: "sys.UnraisableHookArgs") -> None:
    """Python drops what a signal's handler raises within a hook of fork: raise it once more when that is over."""
    if isinstance(found.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.1)
    else:
        sys.__unraisablehook__(found)


if __name__ == "__main__":
    sys.exit(main())
