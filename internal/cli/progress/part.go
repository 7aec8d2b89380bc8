package progress

import "time"

// Part is how far something is of what a bar shows, in bytes. It has a line of its own below the bar, on terminals only.
type Part struct {
	Title       string
	Done, Total int64 // a total of 0 is not known yet
	Note        string
}

// Below sets what stands below the bar.
func (b *Bar) Below(parts []Part) { b.update(func() { b.parts = parts }) }

// lines returns parts as at most height lines of at most width characters.
func lines(parts []Part, width, height int) (out []string) {
	for _, p := range parts[:max(min(len(parts), height), 0)] {
		title := "  " + p.Title
		if p.Total <= 0 {
			out = append(out, cut(title+": "+p.Note, width))
			continue
		}
		b := Bar{title: title, done: p.Done, total: p.Total, note: p.Note, unit: Bytes, began: time.Now()} // without a rate: when it began is not known
		out = append(out, b.line(width))
	}
	return out
}
