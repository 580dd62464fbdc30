"""MetaGAN (Zhang et al., NeurIPS 2018): a few-shot classifier as the discriminator of a GAN."""

from fewshot_bench import hookimpl


@hookimpl
def register_methods() -> dict[str, str]:
    return {"metagan": "fsb_metagan.metagan:MetaGAN"}
