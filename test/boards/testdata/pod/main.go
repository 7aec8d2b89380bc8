// Program pod is what the pods of a mixed fleet run: it says which processor it was built for, and waits for its end.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	fmt.Println("built for", runtime.GOARCH)
	<-end
}
