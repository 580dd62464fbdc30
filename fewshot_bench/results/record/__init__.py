"""The record of a run and the tables beside it: model, files, CSV tables, code, environment.

Other rooms import from here, and what a run writes from :mod:`.build`.
"""

from fewshot_bench.results.record.files import (
    RECORD,
    folder_of,
    is_locked,
    new_run_folder,
    read_record,
    resume_command,
    run_lock,
    with_result,
    write_record,
)
from fewshot_bench.results.record.model import SCHEMA_VERSION, TEST, VALIDATION
from fewshot_bench.results.record.tables import (
    CLASSES,
    read_classes,
    read_table,
    write_atomically,
    write_classes,
    write_table,
)

__all__ = [
    "CLASSES", "RECORD", "SCHEMA_VERSION", "TEST", "VALIDATION", "folder_of", "is_locked",
    "new_run_folder", "read_classes", "read_record", "read_table", "resume_command",
    "run_lock", "with_result", "write_atomically", "write_classes", "write_record",
    "write_table",
]  # fmt: skip
