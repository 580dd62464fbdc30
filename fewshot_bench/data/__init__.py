"""Labeled images, class tables and splits; reading, resizing, caching and downloading images.

Plugins import the names below from here; each is loaded when it is first used.
Other rooms may also import the modules; ``overlap`` finds images that were trained on.
"""

from typing import TYPE_CHECKING

from fewshot_bench.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from fewshot_bench.data.archives import *  # noqa: F403
    from fewshot_bench.data.cache import *  # noqa: F403
    from fewshot_bench.data.decode import *  # noqa: F403
    from fewshot_bench.data.download import *  # noqa: F403
    from fewshot_bench.data.images import *  # noqa: F403
    from fewshot_bench.data.splits import *  # noqa: F403
    from fewshot_bench.data.table import *  # noqa: F403
    from fewshot_bench.data.transforms import *  # noqa: F403
else:
    __getattr__ = lazy_exports(
        __name__,
        archives="extract_files file_sha256 image_members open_zip read_member",
        cache="Decoded cached expand_home file_stamp",
        decode="IMAGE_SUFFIXES decode_image read_image",
        download="download_file",
        images="Dataset LabeledImages Splits",
        splits="ClassLists check_lists random_splits read_split_file select_classes shuffled",
        table="ClassTable",
        transforms="Resize resize with_rotations",
    )
