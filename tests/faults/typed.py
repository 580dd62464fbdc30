"""Wrong words on the command line."""

import torch

from tests.faults.fault import Fault


def has_gpu() -> str | None:
    """A reason to skip what tells how many GPUs there are."""
    return "the message counts the GPUs" if torch.cuda.is_available() else None


CASES = (
    Fault("no such command", "rnu protonet"),
    Fault("no such method", "run protnet"),
    Fault("a method's name that is a path", "run ../../etc/passwd"),
    Fault("no such data set", "run protonet --dataset omniglott"),
    Fault("no such backbone", "run protonet --backbone conv5"),
    Fault("no such option", "run protonet --inner-lr 0.1"),
    Fault("a word for a number", "run protonet --way five"),
    Fault("an infinite number", "run protonet --lr inf"),
    Fault("a number of forty digits", "run protonet --way " + "9" * 40),
    Fault("a way of 0", "run protonet --way 0"),
    Fault("more classes than there are", "run nearest-centroid --way 200"),
    Fault("more images than a class has", "run nearest-centroid --shot 30"),
    Fault("no such device", "run nearest-centroid --device cuda:99", why_not=has_gpu),
    Fault("a learning rate below 0", "run protonet --lr -1 TRAINS"),
    Fault("a spike factor below 1", "run protonet --skip-spikes 0.5"),
    Fault("an option of another command", "run protonet --baseline maml"),
    Fault("no such kind of picture, which is a path", "figure ../../x -o x.png", runs="a"),
    Fault("a picture of no known format", "figure forest -o x.exe runs", runs="a"),
    Fault("no such exporter", "compare --format ../x runs", runs="a"),
    Fault("a baseline that is a path", "compare --baseline ../../x runs", runs="ab"),
    Fault("a folder that is not there", "compare nowhere"),
    Fault("a run that is not there", "eval nowhere"),
    Fault("no way to plan", "plan --power 2"),
    Fault("a new plugin with a path for a name", "new ../evil --kind method"),
    Fault("a control character in a word", "run \x1b[31mred"),
)
