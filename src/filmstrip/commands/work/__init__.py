"""The implementations of the commands, imported when a command is called so that its help starts quickly."""
