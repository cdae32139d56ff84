"""Parsers fed with damaged input, for as long as you like.

    make fuzz                                   every parser in turn, a minute altogether
    make fuzz ARGS="target=qcow2 seconds=3600"  one of them, for an hour
    make fuzz ARGS="target=qcow2 input=FILE"    this input once more

Good input is damaged and damaged again; a parser may refuse it in its own words, within a second
and in little memory. Whatever else it does is a failure: the input is kept, and the command printed
that has it once more.
"""
