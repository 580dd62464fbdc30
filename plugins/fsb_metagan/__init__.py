"""MetaGAN (Zhang et al., NeurIPS 2018): a few-shot classifier as the discriminator of a GAN."""

from fewshot_bench.hooks import hookimpl
from fewshot_bench.hooks.specs import Names


@hookimpl
def register_methods() -> Names:
    return {"metagan": "fsb_metagan.metagan:MetaGAN"}
