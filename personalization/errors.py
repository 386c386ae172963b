"""The one kind of error that a user sees: a line that says what is wrong, what was expected and what to do."""


class UserError(Exception):
    """A mistake in what the user gave. Its text is one complete line; the command line prints it and exits with 2."""
