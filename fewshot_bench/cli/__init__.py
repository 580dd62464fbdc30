"""The command line: thin commands over the package. Nothing here imports torch until it is used."""
