"""The command line: one module per command, and ``main``, which lists and calls them.

Nothing is imported from outside but ``main.main``. Importing this room does not import torch.
"""
