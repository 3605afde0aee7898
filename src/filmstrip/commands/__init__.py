"""What each command of the command line does, one file a command; ``__main__.py`` reads their options."""
