"""The samplers, metrics and table formats that fewshot-bench itself brings."""

from fewshot_bench import hookimpl


@hookimpl
def register_samplers() -> dict[str, str]:
    return {
        "closed": "fewshot_bench.sampling.base:ClosedSampler",
        "open": "fewshot_bench.sampling.open:OpenSampler",
        "open-balanced": "fewshot_bench.sampling.open:BalancedOpenSampler",
        "in-order": "fewshot_bench.sampling.open:InOrderSampler",
    }


@hookimpl
def register_metrics() -> dict[str, str]:
    return {
        "accuracy": "fewshot_bench.method:accuracy",
        "cross-entropy": "fewshot_bench.method:cross_entropy",
    }


@hookimpl
def register_exporters() -> dict[str, str]:
    return {
        "markdown": "fewshot_bench.results.formats.markdown:markdown",
        "latex": "fewshot_bench.results.formats.latex:latex",
        "csv": "fewshot_bench.results.formats.data:to_csv",
        "json": "fewshot_bench.results.formats.data:to_json",
        "html": "fewshot_bench.report.page:html",
    }
