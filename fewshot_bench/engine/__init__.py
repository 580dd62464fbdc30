"""Training and evaluation of a method on a device: the loop, executors, checkpoints, inspection.

Other rooms import the modules of this one; ``executors`` exports the executors and ``choose``.
"""
