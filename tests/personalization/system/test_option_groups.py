"""A command whose options come in groups is what Typer makes of a flat one."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from personalization.errors import UserError
from personalization.system.option_groups import grouped


@dataclass(frozen=True, kw_only=True)
class Oven:
    heat: Annotated[int, typer.Option(help="Degrees.")] = 200
    door: Annotated[str | None, typer.Option(help="Which side.")] = None

    def __post_init__(self) -> None:
        if self.heat < 0:
            raise UserError("too cold")


@dataclass(frozen=True, kw_only=True)
class Dough:
    flour: Annotated[int, typer.Option(help="Grams.")]


def app(made: list) -> typer.Typer:
    def bake(
        *,
        name: Annotated[str, typer.Argument(help="Of the bread.")],
        oven: Oven,
        dough: Dough,
        loud: Annotated[bool, typer.Option("--loud")] = False,
    ) -> None:
        """Bake a bread."""
        made.append((name, oven, dough, loud))

    typed = typer.Typer()
    typed.command()(grouped(bake))
    return typed


def run(*arguments: str):
    made: list = []
    return CliRunner().invoke(app(made), list(arguments), env={"COLUMNS": "120"}), made


def test_a_group_is_made_of_what_was_given():
    assert run("rye", "--flour", "500")[1] == [("rye", Oven(), Dough(flour=500), False)]
    result, made = run("rye", "--flour", "500", "--heat", "230", "--door", "left", "--loud")
    assert result.exit_code == 0, result.output
    assert made == [("rye", Oven(heat=230, door="left"), Dough(flour=500), True)]


def test_help_lists_the_options_of_a_group_where_the_group_stands():
    text = run("--help")[0].output
    assert "Bake a bread." in text
    places = [text.index(option) for option in ("--heat", "--door", "--flour", "--loud")]
    assert places == sorted(places)
    assert "[default: 200]" in text
    assert "--oven" not in text


def test_what_is_missing_or_refused_is_told():
    assert run("rye")[0].exit_code == 2
    assert isinstance(run("rye", "--flour", "1", "--heat", "-1")[0].exception, UserError)


def test_two_options_of_one_name_are_a_fault():
    def twice(*, oven: Oven, heat: Annotated[int, typer.Option()] = 3) -> None:
        """Never runs."""

    with pytest.raises(ValueError, match="heat"):
        grouped(twice)
