"""The one exception that is meant for a person."""


class InputError(ValueError):
    """A setting or a data set is wrong.

    The message is one line: which field, what was given, what is allowed or what to do
    instead. Commands print it and exit with code 2, before anything is written.
    """
