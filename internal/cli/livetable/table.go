package livetable

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/printers"

	"petrel.dev/petrel/internal/cli/printer"
)

// table is what is shown: a row for each object that there is. It has no clock and no goroutine.
type table struct {
	columns []metav1.TableColumnDefinition
	rows    map[string]metav1.TableRow // by namespace, a slash and name
}

// set replaces all rows.
func (t *table) set(from *metav1.Table) {
	t.rows = map[string]metav1.TableRow{}
	t.change(watch.Modified, from)
}

// change takes up what a watch reports of some objects.
func (t *table) change(event watch.EventType, from *metav1.Table) {
	if len(from.ColumnDefinitions) > 0 { // a watch sends them once
		t.columns = from.ColumnDefinitions
	}
	for _, row := range from.Rows {
		o, ok := row.Object.Object.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		key := o.GetNamespace() + "/" + o.GetName()
		if event == watch.Deleted {
			delete(t.rows, key)
		} else {
			t.rows[key] = row
		}
	}
}

// text returns the table in not more than height lines, with a line for the rows that do not fit.
func (t *table) text(opts Options, now time.Time, height int) (string, error) {
	all := &metav1.Table{ColumnDefinitions: t.columns}
	for _, key := range slices.SortedFunc(maps.Keys(t.rows), func(a, b string) int {
		aSpace, aName, _ := strings.Cut(a, "/")
		bSpace, bName, _ := strings.Cut(b, "/")
		return cmp.Or(cmp.Compare(aSpace, bSpace), cmp.Compare(aName, bName))
	}) {
		all.Rows = append(all.Rows, aged(t.columns, t.rows[key], now))
	}
	if len(all.Rows) == 0 {
		return opts.Empty + "\n", nil
	}
	if err := printer.SortTable(all, opts.SortBy); err != nil {
		return "", err
	}
	var b bytes.Buffer
	out := printers.GetNewTabWriter(&b)
	if err := printers.NewTablePrinter(opts.Print).PrintObj(all, out); err != nil {
		return "", err
	}
	if err := out.Flush(); err != nil {
		return "", err
	}
	lines := strings.SplitAfter(b.String(), "\n")
	lines = lines[:len(lines)-1]
	if len(lines) <= height {
		return b.String(), nil
	}
	shown := max(height-1, 1)
	return strings.Join(lines[:shown], "") + fmt.Sprintf("… and %d more\n", len(lines)-shown), nil
}

// aged returns the row with the age that its object has now: the server's is that of the object's last change.
func aged(columns []metav1.TableColumnDefinition, row metav1.TableRow, now time.Time) metav1.TableRow {
	i := slices.IndexFunc(columns, func(c metav1.TableColumnDefinition) bool { return c.Name == "Age" })
	o, ok := row.Object.Object.(*unstructured.Unstructured)
	if !ok || i < 0 || i >= len(row.Cells) {
		return row
	}
	created := o.GetCreationTimestamp()
	if created.IsZero() {
		return row
	}
	row.Cells = slices.Clone(row.Cells)
	row.Cells[i] = duration.HumanDuration(now.Sub(created.Time))
	return row
}
