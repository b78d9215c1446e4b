"""What the user is told when an option, a model or a file cannot be used."""


class DSLError(ValueError):
    """A one-line message that names the option, its value and what is allowed."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); it ends as after Ctrl-C."""
