package complete

import _ "embed"

//go:embed petrel.bash
var bash string

//go:embed petrel.zsh
var zsh string

//go:embed petrel.fish
var fish string

// Scripts are what the shells run, by their names.
var Scripts = map[string]string{"bash": bash, "zsh": zsh, "fish": fish}
