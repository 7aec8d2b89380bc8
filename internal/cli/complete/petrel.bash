# Completion of petrel for bash: source <(petrel completion bash)
_petrel() {
    local line=${COMP_LINE:0:COMP_POINT} cur prefix word
    local -a words=()
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cur=${words[${#words[@]}-1]}
    prefix=${cur%"${cur##*[:=]}"} # bash completes what follows a colon or an equals sign as a word of its own
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        if [[ $word == :files ]]; then
            compopt -o default
            return
        fi
        COMPREPLY+=("${word#"$prefix"}")
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _petrel petrel
