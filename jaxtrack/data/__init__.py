"""Datasets: layouts as published, TFDS builds of them, pair sampling through Grain.

jaxtrack.data.layouts   reads a dataset's own folder (numpy only)
jaxtrack.data.prepare   ``python -m jaxtrack.data.prepare DATASET --source DIR --output DIR``
jaxtrack.data.source    random access to the frames and boxes of a built dataset
jaxtrack.data.sampling  which frames form a training sample, and the patches cut from them
jaxtrack.data.pipeline  mixture, workers, sharding, a position that can be saved

Clips that need no files are drawn by `jaxtrack.synthetic`.
"""
