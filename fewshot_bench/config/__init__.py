"""Settings of a run: their schema, options of plugins, presets, and how a configuration is made.

From outside: ``schema`` (RunConfig, SETTINGS, scopes), ``options`` (Option, options of plugins) and
``resolve`` (configure, Draft, with_changes). Plugins use ``InputFile`` of ``fewshot_bench`` alone.
"""
