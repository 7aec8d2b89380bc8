package storage

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Space is a file system as seen by one without privileges: what root alone may use counts as used.
type Space struct {
	Total, Free      int64 // bytes
	Inodes, FreeNode int64 // 0, 0 where the file system does not count them
	// Device identifies the file system.
	Device uint64
}

// Look measures the file system that path is on.
func Look(path string) (Space, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Space{}, fmt.Errorf("space of %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Space{}, fmt.Errorf("space of %s: %w", path, err)
	}
	unit := int64(fs.Bsize)
	return Space{Total: int64(fs.Blocks) * unit, Free: int64(fs.Bavail) * unit, Inodes: int64(fs.Files), FreeNode: int64(fs.Ffree), Device: uint64(st.Dev)}, nil
}

// Amount is a size in bytes, or a part of the whole in percent.
type Amount struct {
	Bytes   int64
	Percent float64
}

// ParseAmount reads "10%" or a quantity such as "500Mi".
func ParseAmount(s string) (Amount, error) {
	if p, ok := strings.CutSuffix(s, "%"); ok {
		v, err := strconv.ParseFloat(p, 64)
		if err != nil || !(v >= 0 && v < 100) {
			return Amount{}, fmt.Errorf("%q is no part of a disk: a number from 0 to less than 100, as in 10%%", s)
		}
		return Amount{Percent: v}, nil
	}
	q, err := resource.ParseQuantity(s)
	if err != nil || q.Sign() < 0 {
		return Amount{}, fmt.Errorf("%q is no size: use a percentage or a quantity, as in 10%% or 500Mi", s)
	}
	return Amount{Bytes: q.Value()}, nil
}

func (a Amount) of(total int64) int64 { return a.Bytes + int64(float64(total)/100*a.Percent) }

// Policy says how much of a disk stays free. The zero value is not useful; begin with Default.
type Policy struct {
	// High and Low are the parts of the disk in use, in percent: above High images are collected, down to Low.
	High, Low int
	// Floor is the free space below which pods are evicted, and the node says DiskPressure.
	Floor Amount
	// FloorMost bounds a Floor in percent, in bytes: a tenth of a large disk is more than a node needs. Zero: no bound.
	FloorMost int64
	// FloorNodes is the part of the inodes, in percent, for which the same holds.
	FloorNodes float64
}

const (
	// leastFloor is free space, in bytes, that no percentage goes below: a small card fills within seconds.
	leastFloor = 128 << 20
	// leastPart bounds leastFloor to a part of a very small disk.
	leastPart = 4
	// mostFloor is what Default defends of a large disk, in bytes.
	mostFloor = 8 << 30
)

// Default is kubelet's policy: images are collected from 85 % down to 80 %, pods are evicted below 10 % free. Of a disk
// of more than 80 GiB it is 8 GiB.
func Default() Policy {
	return Policy{High: 85, Low: 80, Floor: Amount{Percent: 10}, FloorMost: mostFloor, FloorNodes: 5}
}

// Check returns what is wrong with a policy.
func (p Policy) Check() error {
	if p.High < 1 || p.High > 100 || p.Low < 0 || p.Low >= p.High {
		return fmt.Errorf("image collection from %d%% down to %d%% of the disk: the first must be from 1 to 100, the second below it", p.High, p.Low)
	}
	return nil
}

// FloorBytes is the free space, in bytes, that is defended on a disk. One that is asked for in bytes is taken as it is.
func (p Policy) FloorBytes(total int64) int64 {
	floor := p.Floor.of(total)
	if p.Floor.Percent > 0 {
		if p.FloorMost > 0 {
			floor = min(floor, p.FloorMost)
		}
		floor = max(floor, min(leastFloor, total/leastPart))
	}
	return floor
}

// Pressure reports whether a disk has less free than the floor.
func (p Policy) Pressure(s Space) bool { return p.Short(s) > 0 || p.shortOfInodes(s) }

// Short is how many bytes are missing to the floor.
func (p Policy) Short(s Space) int64 {
	if s.Total == 0 {
		return 0
	}
	return max(p.FloorBytes(s.Total)-s.Free, 0)
}

func (p Policy) shortOfInodes(s Space) bool {
	return s.Inodes > 0 && float64(s.FreeNode)*100 < float64(s.Inodes)*p.FloorNodes
}

// Collect is how many bytes of images should go now: nothing up to High, and from there as much as leads down to Low.
// Under pressure all that may go does.
func (p Policy) Collect(s Space) int64 {
	switch used := s.Total - s.Free; {
	case s.Total == 0:
		return 0
	case p.Pressure(s):
		return s.Total
	case used*100 >= s.Total*int64(p.High):
		return used - s.Total*int64(p.Low)/100
	}
	return 0
}

// Enough reports whether a disk is back at Low.
func (p Policy) Enough(s Space) bool {
	return !p.Pressure(s) && (s.Total-s.Free)*100 <= s.Total*int64(p.Low)
}

// How long a disk goes without being looked at, and how fast it may be expected to fill, in bytes a second.
const (
	longestLook  = 30 * time.Second
	shortestLook = 2 * time.Second
	fillRate     = 64 << 20
)

// NextLook is how long a disk need not be looked at: the closer it is to its floor, the sooner.
func (p Policy) NextLook(s Space) time.Duration {
	left := min(max(s.Free-p.FloorBytes(s.Total), 0), 60*fillRate) // beyond longestLook in any case
	return min(max(time.Duration(float64(left)/fillRate*float64(time.Second)), shortestLook), longestLook)
}

// Spare returns why nothing large may be written to the disk that path is on, or nil.
func (p Policy) Spare(path string) error {
	s, err := Look(path)
	if err != nil {
		return err
	}
	if p.Pressure(s) {
		return fmt.Errorf("the disk of %s has %s free, less than the %s that this node keeps free; remove something, as \"petrel image prune\" does with images that nothing uses",
			path, Size(s.Free), Size(p.FloorBytes(s.Total)))
	}
	return nil
}

// Size is a number of bytes for people.
func Size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
