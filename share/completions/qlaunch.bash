# Generated from qlaunch's parsers by `make generate`; do not edit.
_qlaunch_verbs='up down restart kill reset pause resume set save wait run ps status top events view display web console logs screenshot argv snapshot revert jobs media disk usb image nic forward ip ssh send-key type clipboard inject nmi dump qmp hmp new import export list show edit check clone rename rm net doctor supervisor service autostart completion help'

_qlaunch_verb() {
    case $1 in
        'up')
            options='--set --all --name --paused --fresh --view --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('PROFILE*')
            values=([--set]='' [--name]='')
            ;;
        'down')
            options='--all --force --timeout --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME*')
            values=([--timeout]='')
            ;;
        'restart')
            options='--force --timeout --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME*')
            values=([--timeout]='')
            ;;
        'kill')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME*')
            values=()
            ;;
        'reset')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME*')
            values=()
            ;;
        'pause')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME*')
            values=()
            ;;
        'resume')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME*')
            values=()
            ;;
        'set')
            options='--persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '*')
            values=()
            ;;
        'save')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME*')
            values=()
            ;;
        'wait')
            options='--for --timeout --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=([--for]='@running stopped agent ssh' [--timeout]='')
            ;;
        'run')
            options='--set --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('PROFILE')
            values=([--set]='')
            ;;
        'ps')
            options='-a --all --watch --format --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME*')
            values=([--format]='')
            ;;
        'status')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=()
            ;;
        'top')
            options='--interval --count --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME*')
            values=([--interval]='' [--count]='')
            ;;
        'events')
            options='-f --follow --since --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME*')
            values=([--since]='')
            ;;
        'view')
            options='--viewer --fullscreen --full-screen --kiosk --share --usb --uri --web --vv --expires --host --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=([--viewer]='@remote-viewer spicy' [--share]='FOLDER' [--usb]='@auto ask off' [--expires]='' [--host]='')
            ;;
        'display')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@clients password kick resize')
            values=()
            ;;
        'display clients')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=()
            ;;
        'display password')
            options='--expires --stdin --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=([--expires]='')
            ;;
        'display kick')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=()
            ;;
        'display resize')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '')
            values=()
            ;;
        'web')
            options='--listen --password-file --tls --cert --key --name --no-open --json -q --quiet -v --verbose --no-color -h --help'
            kinds=()
            values=([--listen]='' [--password-file]='FILE' [--cert]='FILE' [--key]='FILE' [--name]='')
            ;;
        'console')
            options='--serial --take --read-only --log --once --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=([--serial]='')
            ;;
        'logs')
            options='-f --follow -n --lines --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=([-n]='' [--lines]='')
            ;;
        'screenshot')
            options='--format --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' 'FILE')
            values=([--format]='@png ppm')
            ;;
        'argv')
            options='--set --next --one-line --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('PROFILE')
            values=([--set]='')
            ;;
        'snapshot')
            options='-m --disks-only --disk --quiesce --internal --children --keep --dry-run --take-over --ascii --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@create list tree show current rename edit delete merge prune sync' 'NAME' '' '')
            values=([-m]='' [--disk]='' [--keep]='')
            ;;
        'revert')
            options='--keep-current --discard --paused --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '')
            values=()
            ;;
        'jobs')
            options='--cancel --limit --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=([--cancel]='' [--limit]='')
            ;;
        'media')
            options='--files --eject --force --persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' 'FILE*')
            values=([--files]='FILE')
            ;;
        'disk')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@attach detach resize move create info check compact')
            values=()
            ;;
        'disk attach')
            options='--bus --id --size --format --backing --serial --read-only --persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' 'FILE')
            values=([--bus]='@virtio scsi nvme usb' [--id]='' [--size]='' [--format]='@qcow2 raw' [--backing]='FILE' [--serial]='')
            ;;
        'disk detach')
            options='--timeout --force --persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '')
            values=([--timeout]='')
            ;;
        'disk resize')
            options='--persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '' '')
            values=()
            ;;
        'disk move')
            options='--speed --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '' 'FILE')
            values=([--speed]='')
            ;;
        'disk create')
            options='--format --backing --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('FILE' '')
            values=([--format]='@qcow2 raw' [--backing]='FILE')
            ;;
        'disk info')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('IMAGE')
            values=()
            ;;
        'disk check')
            options='--repair --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('IMAGE')
            values=()
            ;;
        'disk compact')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('IMAGE' '')
            values=()
            ;;
        'usb')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@list attach detach redirect slots')
            values=()
            ;;
        'usb list')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=()
            ;;
        'usb attach')
            options='--id --cd --format --read-only --persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' 'FILE')
            values=([--id]='' [--format]='@raw qcow2')
            ;;
        'usb detach')
            options='--persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' 'FILE')
            values=()
            ;;
        'usb redirect')
            options='--listen --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '')
            values=([--listen]='')
            ;;
        'usb slots')
            options='--force --persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '')
            values=()
            ;;
        'image')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@chain info create resize import convert check')
            values=()
            ;;
        'image chain')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('FILE')
            values=()
            ;;
        'image info')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('IMAGE')
            values=()
            ;;
        'image create')
            options='--format --backing --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('FILE' '')
            values=([--format]='@qcow2 raw' [--backing]='FILE')
            ;;
        'image resize')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('FILE' '')
            values=()
            ;;
        'image import')
            options='--format --part --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('FILE' '')
            values=([--format]='' [--part]='FILE')
            ;;
        'image convert')
            options='--format --from --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('FILE' '')
            values=([--format]='@qcow2 raw' [--from]='@qcow2 raw vmdk vdi vhdx vpc qed')
            ;;
        'image check')
            options='--repair --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('IMAGE')
            values=()
            ;;
        'nic')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@attach detach set list')
            values=()
            ;;
        'nic attach')
            options='--id --network --backend --model --mac --ipv4 --ipv6 --filter --queues --forward --link --restrict --persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=([--id]='' [--network]='NETWORK' [--backend]='@auto user passt none' [--model]='@virtio e1000e e1000 rtl8139 pcnet' [--mac]='' [--ipv4]='' [--ipv6]='' [--filter]='@clean mac none' [--queues]='' [--forward]='' [--link]='@up down')
            ;;
        'nic detach')
            options='--timeout --persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '')
            values=([--timeout]='')
            ;;
        'nic set')
            options='--persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '' '*')
            values=()
            ;;
        'nic list')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=()
            ;;
        'forward')
            options='--remove --nic --persist --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '*')
            values=([--nic]='')
            ;;
        'ip')
            options='--one --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=()
            ;;
        'ssh')
            options='--user --port --way --print --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '*')
            values=([--user]='' [--port]='' [--way]='@address forward door')
            ;;
        'send-key')
            options='--hold --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '*')
            values=([--hold]='')
            ;;
        'type')
            options='--enter --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '')
            values=()
            ;;
        'clipboard')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@get set')
            values=()
            ;;
        'clipboard get')
            options='--wait --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=([--wait]='')
            ;;
        'clipboard set')
            options='--once --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '')
            values=()
            ;;
        'inject')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '@nmi power-button wakeup')
            values=()
            ;;
        'nmi')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME')
            values=()
            ;;
        'dump')
            options='--format --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' 'FILE')
            values=([--format]='@kdump-zlib kdump-lzo kdump-snappy elf win-dmp')
            ;;
        'qmp')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '' '*')
            values=()
            ;;
        'hmp')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '*')
            values=()
            ;;
        'new')
            options='--guest --iso --disk --data-disk --memory --cpus --path --force --edit --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('')
            values=([--guest]='@windows-xp windows-2000 windows-7 windows-10 windows-11 linux bsd dos other' [--iso]='FILE' [--disk]='' [--data-disk]='' [--memory]='' [--cpus]='' [--path]='FILE')
            ;;
        'import')
            options='--name -o --output --stdout --strict --from-libvirt --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('FILE*')
            values=([--name]='' [-o]='FILE' [--output]='FILE')
            ;;
        'export')
            options='--libvirt -o --output --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('PROFILE')
            values=([-o]='FILE' [--output]='FILE')
            ;;
        'list')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=()
            values=()
            ;;
        'show')
            options='--set --plan --origins --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('PROFILE')
            values=([--set]='')
            ;;
        'edit')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('PROFILE')
            values=()
            ;;
        'check')
            options='--set --strict --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('PROFILE*')
            values=([--set]='')
            ;;
        'clone')
            options='--snapshot --linked --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('PROFILE' '')
            values=([--snapshot]='')
            ;;
        'rename')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '')
            values=()
            ;;
        'rm')
            options='-y --yes -n --dry-run --keep-disks --all-disks --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('PROFILE')
            values=()
            ;;
        'net')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@list show up down create edit rm plan leases uplink doctor setup')
            values=()
            ;;
        'net list')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=()
            values=()
            ;;
        'net show')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NETWORK')
            values=()
            ;;
        'net up')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NETWORK*')
            values=()
            ;;
        'net down')
            options='--force --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NETWORK*')
            values=()
            ;;
        'net create')
            options='--mode --title --address --ipv6 --bridge --uplink --range --domain --autostart --edit --up --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('')
            values=([--mode]='@nat routed isolated open bridge uplink' [--title]='' [--address]='' [--ipv6]='' [--bridge]='' [--uplink]='' [--range]='' [--domain]='')
            ;;
        'net edit')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NETWORK')
            values=()
            ;;
        'net rm')
            options='-y --yes --force --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NETWORK')
            values=()
            ;;
        'net plan')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NETWORK')
            values=()
            ;;
        'net leases')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NETWORK')
            values=()
            ;;
        'net uplink')
            options='--timeout -y --yes --undo --force --json -q --quiet -v --verbose --no-color -h --help'
            kinds=('' '')
            values=([--timeout]='')
            ;;
        'net doctor')
            options='--mend --json -q --quiet -v --verbose --no-color -h --help'
            kinds=()
            values=()
            ;;
        'net setup')
            options='--user --group --network --no-systemd --stdout --remove --force --json -q --quiet -v --verbose --no-color -h --help'
            kinds=()
            values=([--user]='' [--group]='' [--network]='NETWORK')
            ;;
        'doctor')
            options='--report --json -q --quiet -v --verbose --no-color -h --help'
            kinds=()
            values=([--report]='FILE')
            ;;
        'supervisor')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@status stop restart')
            values=()
            ;;
        'service')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@install uninstall status')
            values=()
            ;;
        'service install')
            options='--user --system --stdout --json -q --quiet -v --verbose --no-color -h --help'
            kinds=()
            values=()
            ;;
        'service uninstall')
            options='--user --system --json -q --quiet -v --verbose --no-color -h --help'
            kinds=()
            values=()
            ;;
        'service status')
            options='--user --system --json -q --quiet -v --verbose --no-color -h --help'
            kinds=()
            values=()
            ;;
        'autostart')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('NAME' '@on off')
            values=()
            ;;
        'completion')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('@bash zsh fish')
            values=()
            ;;
        'help')
            options='--json -q --quiet -v --verbose --no-color -h --help'
            kinds=('' '')
            values=()
            ;;
        *) return 1 ;;
    esac
}

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
