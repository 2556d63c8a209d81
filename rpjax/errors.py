"""The exceptions that are meant for a person."""


class InputError(ValueError):
    """A setting or a data set is wrong.

    The message is one line: which field, what was given, what is allowed or what to do
    instead. Commands print it and exit with code 2, before anything is written.
    """


class FailedElsewhere(InputError):
    """Another process found something wrong, and says what; this one only ends too."""


class Preempted(Exception):
    """A training was asked to stop (SIGTERM), and saved where it was.

    Commands print the message and exit with code 75, which schedulers take for "try
    again"; the same call goes on from there.
    """


class StorageError(OSError):
    """Something could not be written, such as a checkpoint on a full disk.

    What was saved before is intact.
    """
