"""The campaign: everything is killed at random and at every named step, and what the guest has
flushed must be there afterwards.

    make chaos                                  a thousand rounds, two histories at a time
    make chaos ARGS="rounds=50 only=revert"     fewer, of one verb
    make chaos ARGS="seed=7 history=3 rounds=9" this history, up to its ninth round

A *history* is one machine with a life of ten rounds. A *round* is a verb that `qlaunch` is told, a
blow somewhere in it (`victims`), recovery as a user would cause it (`qlaunch ps`, `qlaunch up`) and
the checks (`checks`). The guest (`blocks.S`) writes numbered blocks to two disks all the time;
`content` is the model of what may be on them.
"""
