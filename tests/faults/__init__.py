"""Faults and bad inputs: each is made, met and told; ``page.py`` makes the table of them."""
