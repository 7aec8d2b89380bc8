// Package tokens has the ServiceAccount tokens that pods mount: which ones a node's pods have and when they are due (Book,
// pure), and how they are made (Maker, beside the dispatcher's loop).
//
// A token's Version on the wire is its expiry. So a hub without it, after a restart for example, sees in the node's map what the
// node holds, and need not make another.
package tokens
