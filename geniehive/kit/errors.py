"""The error whose text is all a user needs, and the exit codes of every command."""

EXIT_OK = 0
EXIT_FAILED = 1
# Wrong use or configuration, a port in use, a folder that can't be written: starting again changes nothing.
EXIT_USAGE = 2
# Another process has taken this one's place; it must not come back by itself.
EXIT_SUPERSEDED = 4
# A credential was refused for good.
EXIT_REFUSED = 5

# A supervisor does not restart a child that ended so.
EXITS_FOR_GOOD = frozenset({EXIT_USAGE, EXIT_SUPERSEDED, EXIT_REFUSED})


class UserError(Exception):
    """What is wrong, where, and what to do next, in words; shown without a traceback."""

    def __init__(self, message: str, exit_code: int = EXIT_USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
