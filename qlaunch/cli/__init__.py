"""The command line: verbs, printing, exit status.

`main` finds the verb in `registry`, imports that one module of `verbs` and builds that one parser:
`ps`, `--help` and completion must stay as quick as a small C program.
"""
