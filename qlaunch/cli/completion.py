"""Completion for bash, zsh and fish, generated from the parsers.

`python -m qlaunch.cli.completion` writes the files in share/completions; `qlaunch completion`
prints them. Names are asked of `qlaunch __names`, which only lists folders.
"""

from __future__ import annotations

import os
import sys

from qlaunch.cli.shape import Argument, Shape, shapes

FILES = {"bash": "qlaunch.bash", "zsh": "_qlaunch", "fish": "qlaunch.fish"}
_HEAD = "# Generated from qlaunch's parsers by `make generate`; do not edit."


def generate(shell: str) -> str:
    """The completion script for `shell`."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](shapes())


# ---- bash ---------------------------------------------------------------------------------------

_BASH = r"""
_qlaunch_complete() {
    # $1: what to complete to; the rest of the work is bash's own.
    case $1 in
        NAME | PROFILE)
            mapfile -t COMPREPLY < <(
                compgen -W "$("${COMP_WORDS[0]/#\~/$HOME}" __names 2>/dev/null)" -- "$cur"
            )
            if [[ $1 == PROFILE ]]; then
                compopt -o filenames 2>/dev/null
                mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(
                    compgen -f -X '!*.toml' -- "$cur"; compgen -d -- "$cur"
                )
            fi
            ;;
        FILE) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        FOLDER) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        @*) mapfile -t COMPREPLY < <(compgen -W "${1#@}" -- "$cur") ;;
    esac
}

_qlaunch() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local verb='' word options='' at=0 skip='' i
    local -A values=()
    local -a kinds=()
    COMPREPLY=()
    # Bash makes a word of the = in --option=value.
    if [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ -n $skip ]]; then
            [[ $word == = ]] || skip=''
        elif [[ $word == -* ]]; then
            [[ -n ${values[$word]+set} ]] && skip=yes
        elif [[ -n $verb ]]; then
            ((at += 1))
        else
            verb=$word
            _qlaunch_verb "$verb"
        fi
    done
    if [[ -z $verb ]]; then
        _qlaunch_complete "@$_qlaunch_verbs --help --version --json --quiet --verbose"
    elif [[ -n ${values[$prev]+set} ]]; then
        _qlaunch_complete "${values[$prev]}"
    elif [[ $cur == -* ]]; then
        _qlaunch_complete "@$options"
    elif ((${#kinds[@]})); then
        word=${kinds[at]-}
        # The last argument may take any number of words: it ends in a star.
        [[ -z $word && ${kinds[-1]} == *\* ]] && word=${kinds[-1]}
        _qlaunch_complete "${word%\*}"
    fi
}

complete -F _qlaunch qlaunch
"""


def _bash(every: list[Shape]) -> str:
    lines = [_HEAD, f"_qlaunch_verbs='{' '.join(shape.verb.name for shape in every)}'", ""]
    lines += ["_qlaunch_verb() {", "    case $1 in"]
    for shape in every:
        flags = [flag for each in (*shape.options, *shape.shared) for flag in each.flags]
        lines += [f"        {shape.verb.name})", f"            options='{' '.join(flags)}'"]
        kinds = [f"'{each.completed}{'*' if each.many else ''}'" for each in shape.arguments]
        lines.append(f"            kinds=({' '.join(kinds)})")
        valued = [
            f"[{flag}]='{each.completed}'"
            for each in shape.options
            if each.takes_value
            for flag in each.flags
        ]
        lines += [f"            values=({' '.join(valued)})", "            ;;"]
    lines += ["    esac", "}"]
    return "\n".join(lines) + "\n" + _BASH


# ---- zsh ----------------------------------------------------------------------------------------

_ZSH_HEAD = r"""
_qlaunch_names() {
    local -a names
    names=(${(f)"$(_call_program names $qlaunch __names 2>/dev/null)"})
    _describe -t machines machine names
}

_qlaunch_profiles() {
    _alternative 'machines:machine:_qlaunch_names' 'files:profile:_files -g "*.toml"'
}
"""
_ZSH_COMMON = (
    "'--json[print data for programs]' '(-q --quiet)'{-q,--quiet}'[print no progress]' "
    "'(-v --verbose)'{-v,--verbose}'[print more]' '(-)'{-h,--help}'[explain qlaunch]' "
    "'(-)--version[print the version]'"
)
_ZSH_ACTIONS = {
    "NAME": "_qlaunch_names",
    "PROFILE": "_qlaunch_profiles",
    "FILE": "_files",
    "FOLDER": "_files -/",
}


def _zsh(every: list[Shape]) -> str:
    lines = ["#compdef qlaunch", _HEAD, _ZSH_HEAD, "_qlaunch() {"]
    lines += [
        "    local qlaunch=$words[1] context state state_descr line",
        "    local -a verbs",
        "    typeset -A opt_args",
        "    verbs=(",
        *(f"        {_quoted(f'{each.verb.name}:{each.verb.help}')}" for each in every),
        "    )",
        "    _arguments -C -S " + _ZSH_COMMON + " '1:command:->verb' '*::argument:->rest'",
        "    case $state in",
        "        verb) _describe -t commands command verbs ;;",
        "        rest)",
        "            case $words[1] in",
    ]
    for shape in every:
        specs = [spec for each in (*shape.options, *shape.shared) for spec in _zsh_option(each)]
        specs += [_zsh_argument(each) for each in shape.arguments]
        lines.append(f"                {shape.verb.name})")
        lines.append(
            "                    _arguments -s -S " + " \\\n                        ".join(specs)
        )
        lines.append("                    ;;")
    lines += ["            esac", "            ;;", "    esac", "}", "", '_qlaunch "$@"']
    return "\n".join(lines) + "\n"


def _zsh_option(option: Argument) -> list[str]:
    value = f":{_zsh_text(option.kind)}:{_zsh_action(option)}" if option.takes_value else ""
    repeated = "*" if option.many else f"({' '.join(option.flags)})"
    return [
        _quoted(
            f"{repeated}{flag}{'=' if value and flag.startswith('--') else ''}"
            f"[{_zsh_text(option.help)}]{value}"
        )
        for flag in option.flags
    ]


def _zsh_argument(argument: Argument) -> str:
    lead = "*" if argument.many else ""
    colons = "::" if argument.optional and not argument.many else ":"
    return _quoted(f"{lead}{colons}{_zsh_text(argument.kind)}:{_zsh_action(argument)}")


def _zsh_action(argument: Argument) -> str:
    if argument.choices:
        return f"({' '.join(argument.choices)})"
    return _ZSH_ACTIONS.get(argument.kind, "")


def _zsh_text(text: str) -> str:
    for letter in "\\[]:":
        text = text.replace(letter, f"\\{letter}")
    return text


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# ---- fish ---------------------------------------------------------------------------------------

_FISH = r"""
function __qlaunch_verb
    for word in (commandline -opc)[2..-1]
        if not string match -q -- '-*' $word
            echo $word
            return
        end
    end
    return 1
end

function __qlaunch_is
    test (__qlaunch_verb; or echo) = $argv[1]
end

complete -c qlaunch -f
complete -c qlaunch -n 'not __qlaunch_verb' -l version -d 'Print the version'
complete -c qlaunch -n 'not __qlaunch_verb' -l json -d 'Print data for programs'
complete -c qlaunch -n 'not __qlaunch_verb' -s h -l help -d 'Explain qlaunch'
"""
_FISH_VALUES = {
    "NAME": "-xa '(qlaunch __names)'",
    "PROFILE": "-ra '(qlaunch __names)'",
    "FILE": "-rF",
    "FOLDER": "-xa '(__fish_complete_directories)'",
}
_FISH_ARGUMENTS = {
    "NAME": "-a '(qlaunch __names)'",
    "PROFILE": "-F -a '(qlaunch __names)'",
    "FILE": "-F",
    "FOLDER": "-a '(__fish_complete_directories)'",
}


def _fish(every: list[Shape]) -> str:
    lines = [_HEAD, _FISH]
    for shape in every:
        verb = shape.verb
        lines.append(
            f"complete -c qlaunch -n 'not __qlaunch_verb' -a {verb.name} -d {_fish_text(verb.help)}"
        )
    for shape in every:
        when = f"complete -c qlaunch -n '__qlaunch_is {shape.verb.name}'"
        for each in shape.arguments:
            if each.choices:
                lines.append(f"{when} -a '{' '.join(each.choices)}'")
            elif each.kind in _FISH_ARGUMENTS:
                lines.append(f"{when} {_FISH_ARGUMENTS[each.kind]}")
        lines += [f"{when} {_fish_option(each)}" for each in (*shape.options, *shape.shared)]
    return "\n".join(lines) + "\n"


def _fish_option(option: Argument) -> str:
    words = [
        f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
    ]
    if option.choices:
        words.append(f"-xa '{' '.join(option.choices)}'")
    elif option.takes_value:
        words.append(_FISH_VALUES.get(option.kind, "-x"))
    return " ".join((*words, "-d", _fish_text(option.help)))


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def write(folder: str) -> None:
    """Write every script into `folder`."""
    os.makedirs(folder, exist_ok=True)
    for shell, name in FILES.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(generate(shell))


if __name__ == "__main__":
    write(sys.argv[1] if len(sys.argv) > 1 else os.path.join("share", "completions"))
