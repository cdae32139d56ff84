"""Completion for bash, zsh and fish, generated from the parsers.

`python -m qlaunch.cli.completion` writes the files in share/completions; `qlaunch completion`
prints them. Names are asked of `qlaunch __names` and `__networks`, which only list folders.
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
        NAME | PROFILE | IMAGE)
            mapfile -t COMPREPLY < <(
                compgen -W "$("${COMP_WORDS[0]/#\~/$HOME}" __names 2>/dev/null)" -- "$cur"
            )
            if [[ $1 == PROFILE ]]; then
                compopt -o filenames 2>/dev/null
                mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(
                    compgen -f -X '!*.toml' -- "$cur"; compgen -d -- "$cur"
                )
            elif [[ $1 == IMAGE ]]; then
                compopt -o filenames 2>/dev/null
                mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$cur")
            fi
            ;;
        NETWORK)
            mapfile -t COMPREPLY < <(
                compgen -W "$("${COMP_WORDS[0]/#\~/$HOME}" __networks 2>/dev/null)" -- "$cur"
            )
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
            # `disk attach`: an action has arguments of its own.
            if ((at == 0)) && _qlaunch_verb "$verb $word"; then
                verb+=" $word"
            else
                ((at += 1))
            fi
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
    for shape in (one for verb in every for one in (verb, *verb.actions)):
        flags = [flag for each in (*shape.options, *shape.shared) for flag in each.flags]
        lines += [f"        '{shape.name}')", f"            options='{' '.join(flags)}'"]
        kinds = [f"'{each.completed}{'*' if each.many else ''}'" for each in shape.arguments]
        lines.append(f"            kinds=({' '.join(kinds)})")
        valued = [
            f"[{flag}]='{each.completed}'"
            for each in shape.options
            if each.takes_value
            for flag in each.flags
        ]
        lines += [f"            values=({' '.join(valued)})", "            ;;"]
    lines += ["        *) return 1 ;;", "    esac", "}"]
    return "\n".join(lines) + "\n" + _BASH


# ---- zsh ----------------------------------------------------------------------------------------

_ZSH_HEAD = r"""
_qlaunch_names() {
    local -a names
    names=(${(f)"$(_call_program names $qlaunch __names 2>/dev/null)"})
    _describe -t machines machine names
}

_qlaunch_networks() {
    local -a names
    names=(${(f)"$(_call_program names $qlaunch __networks 2>/dev/null)"})
    _describe -t networks network names
}

_qlaunch_profiles() {
    _alternative 'machines:machine:_qlaunch_names' 'files:profile:_files -g "*.toml"'
}

_qlaunch_images() {
    _alternative 'machines:machine:_qlaunch_names' 'files:image:_files'
}
"""
_ZSH_COMMON = (
    "'--json[print data for programs]' '(-q --quiet)'{-q,--quiet}'[print no progress]' "
    "'(-v --verbose)'{-v,--verbose}'[print more]' '(-)'{-h,--help}'[explain qlaunch]' "
    "'(-)--version[print the version]'"
)
_ZSH_ACTIONS = {
    "NAME": "_qlaunch_names",
    "NETWORK": "_qlaunch_networks",
    "PROFILE": "_qlaunch_profiles",
    "IMAGE": "_qlaunch_images",
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
        lines += [f"                {shape.name})", *_zsh_verb(shape), "                    ;;"]
    lines += ["            esac", "            ;;", "    esac", "}", "", '_qlaunch "$@"']
    return "\n".join(lines) + "\n"


def _zsh_verb(shape: Shape) -> list[str]:
    indent = " " * 20
    if not shape.actions:
        return [f"{indent}{_zsh_arguments(shape, indent)}"]
    listed = " ".join(
        _quoted(f"{each.name.partition(' ')[2]}:{each.help}") for each in shape.actions
    )
    lines = [
        f"{indent}local -a actions=({listed})",
        f"{indent}state=",
        f"{indent}_arguments -C -S " + _ZSH_COMMON + " '1:action:->action' '*::argument:->more'",
        f"{indent}case $state in",
        f"{indent}    action) _describe -t actions action actions ;;",
        f"{indent}    more)",
        f"{indent}        case $words[1] in",
    ]
    for each in shape.actions:
        inner = f"{indent}                "
        lines += [f"{indent}            {each.name.partition(' ')[2]})"]
        lines += [f"{inner}{_zsh_arguments(each, inner)}", f"{inner};;"]
    return [*lines, f"{indent}        esac", f"{indent}        ;;", f"{indent}esac"]


def _zsh_arguments(shape: Shape, indent: str) -> str:
    specs = [spec for each in (*shape.options, *shape.shared) for spec in _zsh_option(each)]
    specs += [_zsh_argument(each) for each in shape.arguments]
    return "_arguments -s -S " + f" \\\n{indent}    ".join(specs)


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

function __qlaunch_action
    set -l words
    for word in (commandline -opc)[2..-1]
        if not string match -q -- '-*' $word
            set -a words $word
        end
    end
    test (count $words) -ge 2; and echo $words[2]
end

function __qlaunch_does
    __qlaunch_is $argv[1]; and test (__qlaunch_action; or echo) = $argv[2]
end

complete -c qlaunch -f
complete -c qlaunch -n 'not __qlaunch_verb' -l version -d 'Print the version'
complete -c qlaunch -n 'not __qlaunch_verb' -l json -d 'Print data for programs'
complete -c qlaunch -n 'not __qlaunch_verb' -s h -l help -d 'Explain qlaunch'
"""
_FISH_VALUES = {
    "NAME": "-xa '(qlaunch __names)'",
    "NETWORK": "-xa '(qlaunch __networks)'",
    "PROFILE": "-ra '(qlaunch __names)'",
    "IMAGE": "-ra '(qlaunch __names)'",
    "FILE": "-rF",
    "FOLDER": "-xa '(__fish_complete_directories)'",
}
_FISH_ARGUMENTS = {
    "NAME": "-a '(qlaunch __names)'",
    "NETWORK": "-a '(qlaunch __networks)'",
    "PROFILE": "-F -a '(qlaunch __names)'",
    "IMAGE": "-F -a '(qlaunch __names)'",
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
        when = f"__qlaunch_is {shape.name}"
        if shape.actions:
            when += "; and not __qlaunch_action"
            for each in shape.actions:
                action = f"-a {each.name.partition(' ')[2]} -d {_fish_text(each.help)}"
                lines.append(f"complete -c qlaunch -n '{when}' {action}")
                lines += _fish_shape(each, f"__qlaunch_does {each.name}")
        lines += _fish_shape(shape, when)
    return "\n".join(lines) + "\n"


def _fish_shape(shape: Shape, condition: str) -> list[str]:
    when = f"complete -c qlaunch -n '{condition}'"
    lines = []
    for each in shape.arguments if not shape.actions else ():
        if each.choices:
            lines.append(f"{when} -a '{' '.join(each.choices)}'")
        elif each.kind in _FISH_ARGUMENTS:
            lines.append(f"{when} {_FISH_ARGUMENTS[each.kind]}")
    return lines + [f"{when} {_fish_option(each)}" for each in (*shape.options, *shape.shared)]


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
