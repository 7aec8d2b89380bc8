// Command nnp prints the effective user: installed setuid, it shows whether a container may gain privileges.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Println("Effective uid:", os.Geteuid()) }
