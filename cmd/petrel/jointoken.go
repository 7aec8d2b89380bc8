package main

import "strings"

// joinVariable is the environment variable for --join.
const joinVariable = "PETREL_JOIN"

// maxToken bounds a join token in bytes.
const maxToken = 16 << 10

// withoutToken returns the arguments without --join and the token; ok is false when they do not have it. What a process was
// started with is readable for every local user for as long as it runs; its environment is not.
func withoutToken(args []string, token string) (rest []string, ok bool) {
	if token == "" || token == "-" {
		return nil, false
	}
	for k := 0; k < len(args); k++ {
		switch {
		case args[k] == "--join" && k+1 < len(args) && args[k+1] == token:
			k++
			ok = true
		case strings.HasPrefix(args[k], "--join=") && args[k][len("--join="):] == token:
			ok = true
		default:
			rest = append(rest, args[k])
		}
	}
	return rest, ok
}
