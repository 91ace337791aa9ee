"""LFPC training on TRL, in folders that follow the way of the data.

Import from the modules, for example `from lfpc_trl.train.run import train`; this package itself imports
nothing, so that `lfpc --help` answers at once. From the ground up:

* `pictures`: originals, sizes, crops
* `data`: records and rows; `models`: families, processors, weights, engines; `html`: what pages share
* `rollouts`: prompt, crop tool, turns, scores; `jobs`: long work in many processes
* `convert`, `synthesize`, `annotate`: where rows come from; `locus`: a second method; `runs`: runs on disk
* `select`, `train`, `evaluate`, `view`: what is done with models
* `demo`, `commands`: what people start
"""
