//go:build embedded

package programs

import _ "embed" // for the directives below

//go:embed embedded/arm64.tar.zst
var archive string

//go:embed embedded/arm64.txt
var manifest string
