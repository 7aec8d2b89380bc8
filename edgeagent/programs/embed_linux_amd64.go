//go:build embedded

package programs

import _ "embed" // for the directives below

//go:embed embedded/amd64.tar.zst
var archive string

//go:embed embedded/amd64.txt
var manifest string
