"""Errors that are meant for the person who runs a command, not for a traceback."""


class UserError(Exception):
    """Something the user can put right: one clear line. The command line prints it and exits with 2."""


class DataError(UserError):
    """A row or a picture is not usable: the line names the file, the row and the rule."""


class InterruptedRun(Exception):  # noqa: N818 - not an error
    """Ctrl-C in a run: the text says what is safe and how to go on."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
