"""fewshot-bench: a plugin-based few-shot learning benchmark."""
