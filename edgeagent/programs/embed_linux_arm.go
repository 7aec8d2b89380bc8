//go:build embedded

package programs

import _ "embed" // for the directives below

//go:embed embedded/arm.tar.zst
var archive string

//go:embed embedded/arm.txt
var manifest string
