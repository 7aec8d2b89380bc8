// Package podlog keeps container logs, in the format that Kubernetes' container runtimes write.
//
//	container ─► shim ─► N.log.stdout, N.log.stderr ─► Pump ─► N.log, N.log.1, …
//	                     (spool, raw bytes)                    (time, stream, F|P, text)
//
// A container's output must neither block nor be lost while the agent is away, and a logging process for each container
// would cost a small board more than the container itself. So the shim, which outlives the agent, appends the raw bytes
// to two plain files; the agent follows them, writes the real log with times and rotation, and gives the space of what
// it has read back to the file system by punching holes, which needs no word with the writer. The spool's blocks are
// mostly free again before they would have reached the disk. After a restart the agent goes on where it was; lines that
// came meanwhile get the time of their reading.
package podlog
