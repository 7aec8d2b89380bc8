#compdef petrel
# Completion of petrel for zsh: source <(petrel completion zsh), or this as _petrel in a directory of $fpath.
_petrel() {
    local -a lines described
    local line
    lines=("${(@f)$("${(Q)words[1]}" __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    for line in "${lines[@]}"; do
        [[ -z $line ]] && continue
        if [[ $line == :files ]]; then
            _files
            return
        fi
        described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    _describe petrel described
}
if [[ $funcstack[1] == _petrel ]]; then
    _petrel "$@"
else
    compdef _petrel petrel
fi
