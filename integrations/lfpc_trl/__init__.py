"""LFPC training on TRL, in folders that follow the flow of the data.

Import from the modules, for example `from lfpc_trl.train.run import train`; this package itself imports
nothing, so that `lfpc --help` is fast. From the bottom up:

* `pictures`: originals, sizes, crops
* `data`: records and rows; `models`: families, processors, weights, engines; `html`: shared code of pages
* `rollouts`: prompts, crop tool, turns, scores; `jobs`: long jobs in many processes
* `convert`, `synthesize`, `annotate`: sources of rows; `locus`: a second method; `runs`: runs on disk
* `select`, `train`, `evaluate`, `view`: using models
* `demo`, `commands`: the commands that users run
"""
