package control

import "sync"

// InParallel calls f(0) to f(n-1), some at a time so that their commits share an fsync, waits for all, and returns the
// error of the lowest index.
func InParallel(n int, f func(i int) error) error {
	const atATime = 32
	errs := make([]error, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, atATime)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = f(i)
			<-slots
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
