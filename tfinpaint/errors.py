"""The one exception that commands turn into a clear line and a non-zero exit, without a traceback."""


class UserError(Exception):
    """Something the user can fix. The message says what, where, what was expected and what to do."""


class StoppedError(Exception):
    """Training has stopped as it was asked to, and is saved. The message says where, and how to continue.

    Attributes:
        exit_code: of the process: 0 for what a scheduler asked, 130 for what a user interrupted.
    """

    def __init__(self, message: str, exit_code: int = 0) -> None:
        super().__init__(message)
        self.exit_code = exit_code


MOST_CHARACTERS = 200  # of a message that is not ours


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its type if it has none.

    A message of ours is whole, because a command that is cut names something else; others have at most
    MOST_CHARACTERS.
    """
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line if isinstance(error, UserError | StoppedError) else line[:MOST_CHARACTERS]
