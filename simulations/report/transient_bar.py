"""A bar of progress that is there while something goes, on a terminal alone."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn

# How often Rich draws by itself.
_DRAWN_PER_SECOND = 10.0


class TransientBar:
    """Draws a bar from the beginning of a `with` block to its end; subclasses say what is on it."""

    def __init__(
        self, console: Console, *columns: str | ProgressColumn, refresh_per_second: float = _DRAWN_PER_SECOND
    ) -> None:
        """Set up the bar with these columns; it is drawn only on a terminal."""
        self._console = console
        self._bar = Progress(
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal,
            refresh_per_second=refresh_per_second,
        )

    def __enter__(self) -> Self:
        """Start the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.stop()
