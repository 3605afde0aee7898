"""The studio: local web pages that show runs while they train, play predictions over films, and label segments.

The pages are rendered here, with a little plain JavaScript and nothing from the network. What a page asks of a run is
done by the commands of ``filmstrip``, each in a process of its own, so that a page can show the command, stop it, and
survive what it does.
"""
