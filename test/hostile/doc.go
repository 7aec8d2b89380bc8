// Package hostile attacks Petrel as its threat model (docs/security.md) says that others may: a hostile pod, node,
// broker, stranger or client. Each test is one attack that succeeded once; it names the row of the table whose bound it
// shows. Attacks whose target is one package are tests beside that package, and the table names them.
//
// `make hostile` runs all of it at full size; `make test` runs the short forms (PETREL_HOSTILE unset).
package hostile

import "os"

// Full reports whether the attacks run at the size that they were found with (make hostile), or in their short forms.
func Full() bool { return os.Getenv("PETREL_HOSTILE") != "" }
