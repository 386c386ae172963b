"""Tables in HTML that a narrow screen scrolls sideways, inside the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Cell:
    """One cell. kind: `figure` stands at the right, `when` is never broken, `words` is; mark: `good` or `bad`."""

    text: str
    kind: str = ""
    mark: str = ""


def figure(text: str) -> Cell:
    """Return a cell that holds a figure."""
    return Cell(text, "figure")


def table(label: str, header: Sequence[Cell], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a table whose accessible name is `label`; the first cell of a row names the row."""
    head = "".join(f'<th scope="col"{_classes(cell)}>{escape(cell.text)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row"{_classes(row[0])}>{escape(row[0].text)}</th>'
        + "".join(f"<td{_classes(cell)}>{escape(cell.text)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    # A region that scrolls must be reachable with the keyboard, and then has to have a name.
    named = f'aria-label="{escape(label)}"'
    return (
        f'<div class="scroll" role="region" tabindex="0" {named}><table {named}>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _classes(cell: Cell) -> str:
    classes = " ".join(filter(None, (cell.kind, cell.mark)))
    return f' class="{classes}"' if classes else ""
