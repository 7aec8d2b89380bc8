// Package guide runs the pages for users, docs/guide/*.md and README.md: each command that a page shows is run as it stands
// there, on machines like the reader's, and has to print what the page says.
//
// What a page may hold:
//
//   - Blocks of the language console. A line "pi1 # COMMAND" is run as root on the machine pi1 (pi2, pi3), a line
//     "$ COMMAND" on the reader's own computer, which has the cluster's kubeconfig. The lines up to the next prompt are what it prints.
//     "ssh root@pi1 COMMAND" runs on that machine without ssh. A line "..." stands for any lines, "..." in a line for any text;
//     ages, addresses, hashes, digests, tokens and versions may differ, and so may the width of columns; lines of
//     progress, which slow machines print, are left out. Commands that only look are
//     repeated until they print it. In a command, a join token that ends in "..." is the one that was printed last. A line "^C" ends
//     a command as a reader would; those that run on without one are ended with the page, or when their machine loses power.
//   - Blocks of the language yaml. When the first line is a comment with a file name, the file is on the machines from
//     then on. Objects are applied with a dry run by the server.
//   - Blocks of the language text, in which there are no commands.
//   - Comments that readers do not see. "<!-- test: continues PAGE -->" on top has the page run on the machines of another one, as that
//     one left them; else it has machines of its own. "<!-- test: unplug pi2 -->", "plug", "cut" (the power) and "boot" do
//     what the text asks the reader to do by hand. "<!-- not run: REASON -->" before a block says why it is not run.
//
// A page leaves nothing behind in the cluster that it ran on.
//
// A machine is a set of namespaces (network, mounts, processes, host name) with a directory as its disk: /etc, /root, /usr/local/bin,
// /var/lib and /var/log are its own, and services that were installed for a plain init are started at a boot. Cutting its power ends
// all its processes and mounts at once; the disk stays.
//
//	go test ./test/guide -run TestPages/storage          one page, and those that it continues
//	go test ./test/guide -run TestPages -update          writes into the pages what is printed now; read the diff
package guide
