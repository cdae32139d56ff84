"""One module per verb, or per family of small ones: `configure(parser)` and `run(args) -> status`.

`args.verb` is the verb's name. `--json`, `--quiet`, `--verbose` and `--no-color` are there already.
"""
