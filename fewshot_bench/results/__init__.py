"""Records of runs, and what is made of them: statistics, comparisons, tables for people and papers.

A plugin that exports comparisons gets a :class:`.comparison.Comparison`; :mod:`.record` and
:mod:`.stats` have their own exports, and :mod:`.runs` finds finished runs.
"""
