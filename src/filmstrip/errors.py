"""The one exception class whose message is written for the person at the keyboard."""


class UserError(Exception):
    """What was asked cannot be done as asked: says what was given, what was expected, and what to do.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """
