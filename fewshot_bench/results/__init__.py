"""Records of runs, and statistics, comparisons and tables of them.

A plugin that exports comparisons gets a :class:`.comparison.Comparison`; :mod:`.record` and
:mod:`.stats` have their own exports, and :mod:`.runs` finds finished runs.
"""
