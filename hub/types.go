package hub

import (
	"log/slog"

	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/internal/lean"
)

// describedTypes describes kinds to server-side apply. When nobody applies any more, most of what it took was garbage for long, and is
// still with the process.
type describedTypes struct {
	openapi.Types
	log *slog.Logger
}

// Release frees what is kept, and gives memory back.
func (d *describedTypes) Release() {
	d.Types.Release()
	lean.GiveBack(d.log)
}
