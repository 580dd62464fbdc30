"""``python -m fewshot_bench`` is ``fsb``."""

from fewshot_bench.cli.main import main

if __name__ == "__main__":
    main()
