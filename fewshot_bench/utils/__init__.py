"""Tools without knowledge of few-shot learning: files and locks, text, devices, generators.

Plugins need nothing from here: :class:`~fewshot_bench.utils.inputs.InputFile`, the type of an
option that takes a file, is exported by :mod:`fewshot_bench`.
"""
