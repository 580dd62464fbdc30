"""Nearest class mean on pixels."""

from fewshot_bench import hookimpl


@hookimpl
def register_methods() -> dict[str, str]:
    return {"nearest-centroid": "fsb_nearest_centroid.nearest_centroid:NearestCentroid"}
