"""Lines with their time: plain where a program or a file reads them, with colour on a terminal."""

from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from deployment.certificates import utc_now


def make_log(console: Console) -> Callable[[str], None]:
    """Return what writes a line to `console`."""

    def say(line: str) -> None:
        time, line = f"{utc_now():%Y-%m-%dT%H:%M:%SZ}", " ".join(line.split())
        if console.is_terminal:
            console.print(Text.assemble((time, "dim"), " ", line), soft_wrap=True)
        else:
            console.file.write(f"{time} {line}\n")
            console.file.flush()

    return say
