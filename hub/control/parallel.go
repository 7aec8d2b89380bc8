package control

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// InParallel calls f(0) to f(n-1), at most 32 at a time so that their commits share an fsync, waits for all, and returns the
// error of the lowest index. A panic in f becomes one in the caller, with f's stack: it belongs to the caller's key.
func InParallel(n int, f func(i int) error) error {
	const atATime = 32
	errs := make([]error, n)
	var wg sync.WaitGroup
	var once sync.Once
	var panicked string
	slots := make(chan struct{}, atATime)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					once.Do(func() { panicked = fmt.Sprintf("%v\n%s", v, debug.Stack()) })
				}
				<-slots
			}()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	if panicked != "" {
		panic(panicked)
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
