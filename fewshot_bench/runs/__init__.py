"""A run from its configuration to its record: train, reuse, resume, evaluate, predict, grids.

From outside: ``context`` (RunContext), ``train``, ``evaluate``, ``predict``, ``grid``, ``resume``
and ``identity``. Plugins use ``run``, ``resume`` and ``evaluate`` of :mod:`fewshot_bench`.
"""
